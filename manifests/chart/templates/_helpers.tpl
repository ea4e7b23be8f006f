{{- define "ca-overlap.webhook.labels" -}}
app.kubernetes.io/name: ca-overlap
app.kubernetes.io/component: webhook
{{- end }}

{{- define "ca-overlap.keeper.labels" -}}
app.kubernetes.io/name: ca-overlap
app.kubernetes.io/component: keeper
{{- end }}

{{- define "ca-overlap.image" -}}
{{- with .Values.image -}}
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
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/component" }}
{{- if hasKey (index $.Values $component "podLabels") $key }}
{{- fail (printf "%s.podLabels: %s is one of the selector's keys" $component $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .Release.Namespace "kube-system" }}
{{- fail "not in kube-system: the registration leaves our own namespace out, and a drain of it must not touch the control plane's" }}
{{- end }}
{{- end }}
