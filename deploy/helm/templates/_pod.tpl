{{/* What tells this release's objects from others'. */}}
{{- define "eddy.labels" -}}
app.kubernetes.io/name: eddy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of one part's pods: (dict "root" $ "part" NAME). */}}
{{- define "eddy.podLabels" -}}
{{ include "eddy.labels" .root }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "eddy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-cpu" .Chart.AppVersion) }}
{{- end }}

{{/* Pods start anew when a setting changes. */}}
{{- define "eddy.settingsChecksum" -}}
checksum/settings: {{ toYaml .Values.settings | sha256sum }}
{{- end }}

{{/* How every pod is confined. */}}
{{- define "eddy.pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
# A Service named eddy-port would set EDDY_PORT.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* How every container is confined, and where it reads its settings. */}}
{{- define "eddy.container" -}}
image: {{ include "eddy.image" . }}
envFrom:
  - configMapRef: {name: {{ .Release.Name }}-settings}
  - secretRef: {name: {{ .Values.secrets.kafka }}, optional: true}
  - secretRef: {name: {{ .Values.secrets.storage }}, optional: true}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Pods of one part go to different nodes where they can: (dict "root" $ "part" NAME). */}}
{{- define "eddy.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "eddy.podLabels" . | nindent 8 }}
{{- end }}

{{/* The volume of registry and event log; scratch space where they are on object storage. */}}
{{- define "eddy.sharedVolume" -}}
- name: shared
{{- if .Values.sharedVolume.enabled }}
  persistentVolumeClaim: {claimName: {{ .Release.Name }}-shared}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}

{{/* A setting's or an argument's value as text. Whole numbers from a million on are 1e+06 to the template, which no setting takes. */}}
{{- define "eddy.text" -}}
{{- if kindIs "float64" . }}{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}
