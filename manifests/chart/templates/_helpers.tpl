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
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /* A preference, not a demand, counted per revision: a list of key and labels. */ -}}
{{- define "ca-overlap.spread" -}}
- topologyKey: {{ .key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- .labels | nindent 6 }}
  matchLabelKeys: ["pod-template-hash"]
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
{{- if eq .Release.Namespace "kube-system" }}
{{- fail "not in kube-system: the registration leaves our own namespace out, and a drain of it must not touch the control plane's" }}
{{- end }}
{{- end }}
