{{- define "esm.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "esm.selector" -}}
app.kubernetes.io/name: esm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "esm.labels" -}}
{{ include "esm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "esm.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "esm.name" .) -}}
{{- end -}}

{{- define "esm.configMap" -}}
{{- .Values.existingConfigMap | default (include "esm.name" .) -}}
{{- end -}}

{{- /* The seconds that a drain may take. Fails where the configuration has a longer Timeout than the values say. */ -}}
{{- define "esm.grace" -}}
{{- $longest := int .Values.functionTimeoutSecondsMax -}}
{{- if not .Values.existingConfigMap -}}
{{- range $name, $function := .Values.config.functions -}}
{{- if gt (int ($function.Timeout | default 0)) $longest -}}
{{- fail (printf "functionTimeoutSecondsMax=%d: function %s has a Timeout of %d s; raise functionTimeoutSecondsMax to that" $longest $name (int $function.Timeout)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- add $longest 25 -}}
{{- end -}}

{{- /* "true" where the state is a table that any number of pods share, "" where it is a file of one pod. */ -}}
{{- define "esm.isShared" -}}
{{- if hasPrefix "dynamodb://" .Values.state -}}true{{- end -}}
{{- end -}}

{{- /* Up at once, down slowly: each pod that comes or goes moves shards. */ -}}
{{- define "esm.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 60
scaleDown:
  stabilizationWindowSeconds: 600
  policies:
    - {type: Pods, value: 1, periodSeconds: 120}
{{- end -}}
