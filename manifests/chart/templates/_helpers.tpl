{{- /* What the names of our objects begin with. The release's name is no part of them. */ -}}
{{- define "ca-overlap.fullname" -}}
{{- coalesce .Values.fullnameOverride .Values.nameOverride "ca-overlap" -}}
{{- end }}

{{- /*
Labels of a component: a list of the root and the component's name. The selector has the first two
alone, because those of a Deployment can never change, and our commands find the Deployments by them.
*/ -}}
{{- define "ca-overlap.selector" -}}
app.kubernetes.io/name: ca-overlap
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "ca-overlap.labels" -}}
{{- $root := first . }}
{{- $own := dict "app.kubernetes.io/name" "ca-overlap" }}
{{- with last . }}
{{- $_ := set $own "app.kubernetes.io/component" . }}
{{- end }}
{{- $usual := dict "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") }}
{{- $_ := set $usual "app.kubernetes.io/instance" $root.Release.Name }}
{{- $_ = set $usual "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ = set $usual "app.kubernetes.io/part-of" "ca-overlap" }}
{{- $_ = set $usual "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- merge (dict) $own $root.Values.commonLabels $usual | toYaml }}
{{- end }}

{{- /* The ServiceAccount of a component: a list of the root and the component's name. */ -}}
{{- define "ca-overlap.serviceAccount" -}}
{{- $values := (index (first .).Values (last .)).serviceAccount }}
{{- $values.name | default (printf "%s-%s" (include "ca-overlap.fullname" (first .)) (last .)) -}}
{{- end }}

{{- /* Metadata of a pod: a list of the root and the component's name. */ -}}
{{- define "ca-overlap.podMetadata" -}}
{{- $root := first . }}
{{- $values := index $root.Values (last .) }}
labels:
  {{- include "ca-overlap.selector" . | nindent 2 }}
  {{- with merge (dict) $values.podLabels $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- $container := dict "kubectl.kubernetes.io/default-container" (last .) }}
  {{- merge (dict) $values.podAnnotations $container | toYaml | nindent 2 }}
{{- end }}

{{- /* The Pod Security Standard that all pods meet. */ -}}
{{- define "ca-overlap.podSecurity" -}}
{{ ternary "privileged" "restricted" .Values.webhook.hostNetwork }}
{{- end }}

{{- /* How many replicas a drain of nodes leaves, from the values of a component. */ -}}
{{- define "ca-overlap.disruptions" -}}
{{- if kindIs "invalid" .minAvailable -}}
maxUnavailable: {{ .maxUnavailable }}
{{- else -}}
minAvailable: {{ .minAvailable }}
{{- end -}}
{{- end }}

{{- define "ca-overlap.image" -}}
{{- with .Values.image -}}
{{- if not .repository }}
{{- fail "image.repository is empty, and no image of ca-overlap is published. Build one with `make image-tar`, load or push it, and name it, as in: --set image.repository=ca-overlap,image.tag=dev (docs/install.md#the-image)" }}
{{- end }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The webhook talks to the API server for its own CA, and to watch the keeper's Lease. */ -}}
{{- define "ca-overlap.webhook.callsApiServer" -}}
{{- if or (not .Values.certManager.enabled) .Values.staged.enabled }}true{{ end -}}
{{- end }}

{{- /* Flags that webhook and keeper share. */ -}}
{{- define "ca-overlap.defaults" -}}
{{- with .Values.defaults }}
{{- with .mode }}
- --default-mode={{ . }}
{{- end }}
{{- if not (kindIs "invalid" .keep) }}
- --keep={{ .keep }}
{{- end }}
{{- with .window }}
- --window={{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Where a pod runs, from the values of its component. */ -}}
{{- define "ca-overlap.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /*
Where the replicas of a component run: a dict of its values and its labels. The defaults are
preferences, not demands, counted per revision. Zones are preferred by affinity, because the
scheduler ignores a spread on nodes that lack any of its keys, and many clusters have no zones.
*/ -}}
{{- define "ca-overlap.spread" -}}
topologySpreadConstraints:
  {{- if kindIs "slice" .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- .labels | nindent 8 }}
    matchLabelKeys: ["pod-template-hash"]
  {{- end }}
affinity:
  {{- if kindIs "map" .values.affinity }}
  {{- toYaml .values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: topology.kubernetes.io/zone
          labelSelector:
            matchLabels:
              {{- .labels | nindent 14 }}
          matchLabelKeys: ["pod-template-hash"]
  {{- end }}
{{- end }}

{{- /*
The arguments of a container: a dict of its own (YAML) and of extraArgs, the value with more. A flag
that is given twice would end the program.
*/ -}}
{{- define "ca-overlap.args" -}}
{{- $flags := list }}
{{- range concat (fromYamlArray .own) .extra }}
{{- $flag := splitList "=" . | first }}
{{- if has $flag $flags }}
{{- fail (printf "%s: %s is set twice: here, or by the chart for another value" $.name $flag) }}
{{- end }}
{{- $flags = append $flags $flag }}
{{- end }}
{{- trim .own }}
{{- with .extra }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- /* The namespaces that may scrape metrics. */ -}}
{{- define "ca-overlap.metricsNamespaceSelector" -}}
{{- $selector := .Values.networkPolicy.metricsNamespaceSelector }}
{{- $default := dict "matchLabels" (dict "ca-overlap.dev/metrics" "allowed") }}
{{- ternary $selector $default (kindIs "map" $selector) | toYaml }}
{{- end }}

{{- define "ca-overlap.egress" -}}
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- /* What a schema cannot say. */ -}}
{{- define "ca-overlap.check" -}}
{{- if and .Values.staged.enabled (not .Values.keeper.enabled) }}
{{- fail "staged.enabled needs keeper.enabled: nobody else promotes a staged leaf" }}
{{- end }}
{{- if and (eq .Values.defaults.mode "staged") (not .Values.staged.enabled) }}
{{- fail "defaults.mode staged needs staged.enabled" }}
{{- end }}
{{- range $component := list "webhook" "keeper" }}
{{- $values := index $.Values $component }}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/component" }}
{{- range $name, $labels := dict "commonLabels" $.Values.commonLabels (printf "%s.podLabels" $component) $values.podLabels }}
{{- if hasKey $labels $key }}
{{- fail (printf "%s: %s is one of the selector's keys" $name $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if not (or $values.serviceAccount.create $values.serviceAccount.name) }}
{{- fail (printf "%s.serviceAccount: name the ServiceAccount that it does not create" $component) }}
{{- end }}
{{- end }}
{{- if eq .Release.Namespace "kube-system" }}
{{- fail "not in kube-system: the registration leaves our own namespace out, and a drain of it must not touch the control plane's" }}
{{- end }}
{{- end }}
