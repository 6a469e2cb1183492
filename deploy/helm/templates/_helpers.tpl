{{/* Values that would be refused halfway through an installation. */}}
{{- define "routine.check" -}}
{{- range $part, $replicas := dict "gateway" .Values.gateway.replicas "engine" .Values.engine.replicas }}
{{- if gt (int $replicas.min) (int $replicas.max) }}
{{- fail (printf "%s.replicas: min is more than max" $part) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.engine.kind "ray") (not (regexMatch `^[1-9][0-9]*$` (toString .Values.engine.resources.ray.requests.cpu))) }}
{{- fail "engine.resources.ray.requests.cpu: Ray counts whole CPUs" }}
{{- end }}
{{- end }}

{{/* Engines there may be at most. */}}
{{- define "routine.mostEngines" -}}
{{- ternary .Values.engine.replicas.max .Values.engine.replicas.min .Values.engine.autoscaling -}}
{{- end }}

{{/* Labels of pods, which a new version of the chart alone must not replace. */}}
{{- define "routine.podLabels" -}}
app.kubernetes.io/part-of: routine
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "routine.labels" -}}
{{ include "routine.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Image of a target of deploy/docker/Dockerfile: (list . "gateway"). */}}
{{- define "routine.image" -}}
{{- $images := (index . 0).Values.images -}}
{{ $images.registry }}routine-{{ index . 1 }}:{{ $images.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{/* What all pods have in common. Service links would set ENGINE_PORT=tcp://..., one of our variables. */}}
{{- define "routine.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "routine.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Pods spread over nodes: the labels that they share. */}}
{{- define "routine.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ toJson . }}}
{{- end }}

{{/* A values file's numbers are floats: 1048576 would be written 1.048576e+06. */}}
{{- define "routine.env" -}}
{{- range $name, $value := . }}
{{- $whole := and (kindIs "float64" $value) (eq (floor $value) $value) }}
- {name: {{ $name }}, value: {{ ternary (int64 $value) $value $whole | toString | quote }}}
{{- end }}
{{- end }}

{{- define "routine.engineEnv" -}}
- name: VLLM_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ .Values.engine.keySecret }}, key: key}
- {name: MODEL, value: {{ .Values.models.base | quote }}}
- {name: ADAPTERS, value: {{ .Values.models.adapters | quote }}}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: hugging-face, key: token, optional: true}
{{- if .Values.models.lockKey }}
- {name: LOCK_KEY, value: /lock/lock.pub}
{{- end }}
{{- include "routine.env" .Values.engine.env }}
{{- end }}

{{- define "routine.modelMounts" -}}
{{- if include "routine.modelVolume" . }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if .Values.models.lockKey }}
- {name: lock, mountPath: /lock, readOnly: true}
{{- end }}
{{- end }}

{{- define "routine.workMounts" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
- {name: shared-memory, mountPath: /dev/shm}
{{- end }}

{{/* Source of the volume "models"; empty if base and adapters are on the hub. */}}
{{- define "routine.modelVolume" -}}
{{- with .Values.models }}
{{- if gt (len (compact (list .claim .image .rclone.remote))) 1 }}
{{- fail "models: name one of claim, image and rclone.remote" }}
{{- end }}
{{- if .claim -}}
persistentVolumeClaim: {claimName: {{ .claim }}, readOnly: true}
{{- else if .image -}}
image: {reference: {{ .image | quote }}}
{{- else if .rclone.remote -}}
emptyDir: {sizeLimit: {{ .rclone.size }}}
{{- else if or (hasPrefix "/" .base) (hasPrefix "/" .adapters) }}
{{- fail "models: base and adapters are folders; set models.claim, models.image or models.rclone.remote to what /models is, or name both on the Hugging Face hub" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "routine.modelVolumes" -}}
{{- with include "routine.modelVolume" . }}
- name: models
  {{- . | nindent 2 }}
{{- end }}
{{- if .Values.models.rclone.remote }}
- name: rclone
  secret: {secretName: {{ required "models.rclone.secret: name the Secret with rclone.conf" .Values.models.rclone.secret }}}
{{- end }}
{{- with .Values.models.lockKey }}
- name: lock
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{- define "routine.cacheVolume" -}}
- name: cache
  {{- if .Values.engine.cacheClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.engine.cacheClaim }}}
  {{- else }}
  emptyDir: {sizeLimit: 20Gi}
  {{- end }}
{{- end }}

{{- define "routine.workVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 4Gi}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: 1Gi}
{{- end }}

{{/* Fetches the models; what a restart finds complete is not fetched again. */}}
{{- define "routine.fetch" -}}
{{- with .Values.models.rclone }}
{{- if .remote }}
initContainers:
  - name: models
    image: {{ .image }}
    args: [copy, --checksum, --config=/rclone/rclone.conf, --cache-dir=/tmp, {{ .remote | quote }}, /models]
    resources:
      requests: {cpu: 500m, memory: 512Mi}
      limits: {cpu: "2", memory: 1Gi}
    securityContext: {{ include "routine.container" $ | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: rclone, mountPath: /rclone, readOnly: true}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}
{{- end }}

{{- define "routine.fromPrometheus" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.monitoring.namespace }}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: prometheus
{{- end }}

{{/* A PromQL expression for this release alone: each selector names its namespace. */}}
{{- define "routine.inNamespace" -}}
{{- $metric := `\b(routine_\w+|routine:[\w:]+|vllm:\w+|up)` -}}
{{- $selector := printf `namespace="%s"` (index . 0).Release.Namespace -}}
{{- $some := regexReplaceAll (print $metric `\{`) (index . 1) (print `${1}{` $selector `, `) -}}
{{- regexReplaceAll (print $metric `([^\w:{]|$)`) $some (print `${1}{` $selector `}${2}`) -}}
{{- end }}
