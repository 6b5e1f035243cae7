{{/* Labels of all objects. Argument: dict "root" $ "component" NAME. */}}
{{- define "sconce.labels" -}}
app.kubernetes.io/name: sconce-{{ .component }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: sconce
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* A component's image. Argument: dict "root" $ "image" IMAGE. */}}
{{- define "sconce.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* A container under Pod Security `restricted`. */}}
{{- define "sconce.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A pod under Pod Security `restricted`. */}}
{{- define "sconce.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where agents and routers run. Fixed: every client says sconce-router.sconce-node.svc. */}}
{{- define "sconce.nodeNamespace" -}}
sconce-node
{{- end }}
