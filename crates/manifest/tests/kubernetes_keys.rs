//! No key of the Kubernetes objects that are read is passed over in silence: each changes what is deployed, or is told
//! with its line. The few that change nothing here are named, each with its reason.

use layby_manifest::{Files, ReadOptions, read};

/// Where keys stand: what is put into the manifest in the place of `@`.
struct Place<'a> {
    name: &'static str,
    manifest: &'a str,
    keys: &'static [(&'static str, &'static str)],
    /// Those that are known to change nothing.
    inert: &'static [&'static str],
}

/// The keys of the Kubernetes API (v1.37), each with a value that is not what holds anyway. Those that the manifest
/// itself has are left out.
const PLACES: &[Place<'_>] = &[
    Place {
        name: "DeploymentSpec",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n  @\n",
        keys: &[
            ("minReadySeconds", "1"),
            ("paused", "true"),
            ("progressDeadlineSeconds", "1"),
            ("replicas", "2"),
            ("strategy", "{type: Recreate}"),
        ],
        // How many old ones are kept to go back to is the node's own setting.
        inert: &["revisionHistoryLimit"],
    },
    Place {
        name: "HorizontalPodAutoscalerSpec",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  maxReplicas: 4\n  @\n",
        keys: &[
            ("behavior", "{scaleDown: {selectPolicy: Disabled}}"),
            (
                "metrics",
                "[{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]",
            ),
            ("minReplicas", "2"),
        ],
        inert: &[],
    },
    Place {
        name: "HPAScalingRules",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  maxReplicas: 4\n  behavior:\n    scaleUp:\n      @\n",
        keys: &[
            ("policies", "[{type: Pods, value: 1, periodSeconds: 60}]"),
            ("selectPolicy", "Min"),
            ("stabilizationWindowSeconds", "10"),
            ("tolerance", "0.05"),
        ],
        inert: &[],
    },
    Place {
        name: "JobSpec",
        manifest: "apiVersion: batch/v1\nkind: Job\nmetadata: {name: web}\nspec:\n  template: {spec: {restartPolicy: Never, containers: [{name: web, image: x}]}}\n  @\n",
        keys: &[
            ("activeDeadlineSeconds", "1"),
            ("backoffLimit", "1"),
            ("backoffLimitPerIndex", "1"),
            ("completionMode", "Indexed"),
            ("completions", "2"),
            ("managedBy", "example.org/x"),
            ("maxFailedIndexes", "1"),
            ("parallelism", "2"),
            ("podFailurePolicy", "{rules: []}"),
            ("podReplacementPolicy", "Failed"),
            ("scheduling", "{}"),
            ("successPolicy", "{rules: []}"),
            ("suspend", "true"),
            ("ttlSecondsAfterFinished", "1"),
        ],
        // Which pods are whose is known without labels.
        inert: &["manualSelector", "selector"],
    },
    Place {
        name: "CronJobSpec",
        manifest: "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: web}\nspec:\n  schedule: 0 3 * * *\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: web, image: x}]}}}}\n  @\n",
        keys: &[
            ("concurrencyPolicy", "Forbid"),
            ("failedJobsHistoryLimit", "2"),
            ("startingDeadlineSeconds", "10"),
            ("successfulJobsHistoryLimit", "2"),
            ("suspend", "true"),
            ("timeZone", "Europe/Berlin"),
        ],
        inert: &[],
    },
    Place {
        name: "PodSpec",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x}]\n      @\n",
        keys: &[
            ("activeDeadlineSeconds", "1"),
            ("affinity", "{nodeAffinity: {}}"),
            ("automountServiceAccountToken", "true"),
            ("dnsConfig", "{searches: [example.org]}"),
            ("dnsPolicy", "Default"),
            ("ephemeralContainers", "[]"),
            ("evictionResponders", "[]"),
            ("hostAliases", "[{ip: 192.0.2.1, hostnames: [a]}]"),
            ("hostIPC", "true"),
            ("hostNetwork", "true"),
            ("hostPID", "true"),
            ("hostUsers", "true"),
            ("hostname", "x\n      subdomain: y"),
            ("hostnameOverride", "x"),
            ("imagePullSecrets", "[{name: x}]"),
            ("initContainers", "[{name: i, image: x}]"),
            ("nodeSelector", "{a: b}"),
            ("os", "{name: linux}"),
            ("overhead", "{cpu: 1}"),
            ("priorityClassName", "x"),
            ("readinessGates", "[]"),
            ("resourceClaims", "[{name: x}]"),
            ("resources", "{limits: {cpu: 1}}"),
            ("restartPolicy", "Never"),
            ("runtimeClassName", "x"),
            ("schedulingGates", "[]"),
            ("schedulingGroup", "{}"),
            ("securityContext", "{runAsUser: 1}"),
            ("serviceAccount", "x"),
            ("serviceAccountName", "x"),
            ("setHostnameAsFQDN", "true"),
            ("shareProcessNamespace", "true"),
            ("terminationGracePeriodSeconds", "1"),
            ("topologySpreadConstraints", "[]"),
            ("volumes", "[{name: x, secret: {}}]"),
        ],
        // There is one machine, which takes every pod at once, and no variables of services are made.
        inert: &[
            "enableServiceLinks",
            "nodeName",
            "preemptionPolicy",
            "priority",
            "schedulerName",
            "tolerations",
        ],
    },
    Place {
        name: "Container",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      volumes: [{name: v}]\n      containers:\n      - name: web\n        image: x\n        @\n",
        keys: &[
            ("args", "[x]"),
            ("command", "[x]"),
            ("env", "[{name: A, value: b}]"),
            ("envFrom", "[{configMapRef: {name: x}}]"),
            ("imagePullPolicy", "Never"),
            ("lifecycle", "{preStop: {}}"),
            ("livenessProbe", "{tcpSocket: {port: 1}}"),
            ("ports", "[{containerPort: 1}]"),
            ("readinessProbe", "{tcpSocket: {port: 1}}"),
            ("resources", "{limits: {cpu: 1}}"),
            ("restartPolicy", "Always"),
            ("restartPolicyRules", "[]"),
            ("securityContext", "{privileged: true}"),
            ("startupProbe", "{tcpSocket: {port: 1}}"),
            ("stdin", "true"),
            ("tty", "true"),
            ("volumeDevices", "[{name: x, devicePath: /dev/x}]"),
            ("volumeMounts", "[{name: v, mountPath: /v}]"),
            ("workingDir", "/x"),
        ],
        // What concerns a change in place, a file of last words, and a standard input that ends.
        inert: &[
            "resizePolicy",
            "stdinOnce",
            "terminationMessagePath",
            "terminationMessagePolicy",
        ],
    },
    Place {
        name: "SecurityContext",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        securityContext:\n          @\n",
        keys: &[
            ("allowPrivilegeEscalation", "true"),
            ("appArmorProfile", "{type: Unconfined}"),
            ("capabilities", "{add: [NET_ADMIN]}"),
            ("privileged", "true"),
            ("procMount", "Unmasked"),
            ("readOnlyRootFilesystem", "true"),
            ("runAsGroup", "1"),
            ("runAsNonRoot", "true"),
            ("runAsUser", "1"),
            ("seLinuxOptions", "{level: x}"),
            ("seccompProfile", "{type: Unconfined}"),
            ("windowsOptions", "{}"),
        ],
        inert: &[],
    },
    Place {
        name: "PodSecurityContext",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x}]\n      securityContext:\n        @\n",
        keys: &[
            ("appArmorProfile", "{type: Unconfined}"),
            ("fsGroup", "1"),
            ("runAsGroup", "1"),
            ("runAsNonRoot", "true"),
            ("runAsUser", "1"),
            ("seLinuxChangePolicy", "Recursive"),
            ("seLinuxOptions", "{level: x}"),
            ("seccompProfile", "{type: Unconfined}"),
            ("supplementalGroups", "[1]"),
            ("supplementalGroupsPolicy", "Strict"),
            ("sysctls", "[{name: net.core.somaxconn, value: '1'}]"),
            ("windowsOptions", "{}"),
        ],
        // What is there already keeps its owners.
        inert: &["fsGroupChangePolicy"],
    },
    Place {
        name: "VolumeMount",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      volumes: [{name: v}]\n      containers:\n      - name: web\n        image: x\n        volumeMounts:\n        - name: v\n          mountPath: /v\n          @\n",
        keys: &[
            ("bindMountOptions", "[]"),
            ("mountPropagation", "Bidirectional"),
            ("readOnly", "true"),
            ("recursiveReadOnly", "Enabled"),
            ("subPath", "x"),
            ("subPathExpr", "x"),
        ],
        inert: &[],
    },
    Place {
        name: "ServicePort",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  selector: {a: b}\n  ports:\n  - port: 80\n    @\n",
        keys: &[
            ("appProtocol", "http"),
            ("nodePort", "30001"),
            ("protocol", "UDP"),
            ("targetPort", "8080"),
        ],
        // A Service's own name for a port: where no Ingress names it, nothing does.
        inert: &["name"],
    },
    Place {
        name: "ServiceSpec",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {a: b}\n  @\n",
        keys: &[
            ("externalIPs", "[192.0.2.1]"),
            ("healthCheckNodePort", "1"),
            ("loadBalancerClass", "x"),
            ("loadBalancerIP", "192.0.2.1"),
            ("loadBalancerSourceRanges", "[192.0.2.0/24]"),
            ("ports", "[{port: 80}]"),
            ("sessionAffinity", "ClientIP"),
            ("sessionAffinityConfig", "{clientIP: {}}"),
            ("trafficDistribution", "PreferClose"),
            ("type", "LoadBalancer"),
        ],
        // Of a cloud's balancers and of the machines of a cluster; `externalName` goes with another type, one replica is
        // behind one address in any case, and that is there whether or not it is ready.
        inert: &[
            "clusterIP",
            "allocateLoadBalancerNodePorts",
            "clusterIPs",
            "externalName",
            "externalTrafficPolicy",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "publishNotReadyAddresses",
        ],
    },
    Place {
        name: "HeadlessService",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {a: b}\n  @\n",
        keys: &[("clusterIP", "None")],
        inert: &[],
    },
    Place {
        name: "ExternalName",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec:\n  ports: []\n  @\n",
        keys: &[("type", "ExternalName\n  externalName: db.example.org")],
        inert: &[],
    },
    Place {
        name: "StatefulSetSpec",
        manifest: "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x, volumeMounts: [{name: d, mountPath: /d}]}], volumes: [{name: d}]}}\n  @\n",
        keys: &[
            ("minReadySeconds", "1"),
            ("ordinals", "{start: 1}"),
            (
                "persistentVolumeClaimRetentionPolicy",
                "{whenDeleted: Delete}",
            ),
            ("podManagementPolicy", "Parallel\n  replicas: 2"),
            ("replicas", "2"),
            ("serviceName", "web"),
            ("updateStrategy", "{rollingUpdate: {partition: 1}}"),
            (
                "volumeClaimTemplates",
                "[{metadata: {name: d}, spec: {resources: {requests: {storage: 1Gi}}}}]",
            ),
        ],
        // As of a Deployment.
        inert: &["revisionHistoryLimit"],
    },
    Place {
        name: "DaemonSetSpec",
        manifest: "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n  @\n",
        keys: &[
            ("minReadySeconds", "1"),
            ("updateStrategy", "{type: OnDelete}"),
        ],
        inert: &["revisionHistoryLimit"],
    },
    Place {
        name: "Pod",
        manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: web, image: x}]\n  @\n",
        keys: &[
            ("restartPolicy", "OnFailure"),
            ("initContainers", "[{name: i, image: x}]"),
            ("hostname", "x"),
        ],
        inert: &[],
    },
    Place {
        name: "InitContainer",
        manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: web, image: x}]\n  initContainers:\n  - name: i\n    image: x\n    @\n",
        keys: &[
            ("args", "[x]"),
            ("env", "[{name: A, value: b}]"),
            ("lifecycle", "{preStop: {sleep: {seconds: 1}}}"),
            ("livenessProbe", "{tcpSocket: {port: 1}}"),
            ("readinessProbe", "{tcpSocket: {port: 1}}"),
            ("resources", "{limits: {cpu: 1}}"),
            ("restartPolicy", "Always"),
            ("startupProbe", "{tcpSocket: {port: 1}}"),
        ],
        inert: &[],
    },
    Place {
        name: "Lifecycle",
        manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: web\n    image: x\n    lifecycle:\n      @\n",
        keys: &[
            ("postStart", "{exec: {command: [a]}}"),
            ("preStop", "{sleep: {seconds: 1}}"),
            ("stopSignal", "SIGINT"),
        ],
        inert: &[],
    },
    Place {
        name: "LifecycleHandler",
        manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: web\n    image: x\n    lifecycle:\n      preStop:\n        sleep: {seconds: 1}\n        @\n",
        keys: &[
            ("exec", "{command: [a]}"),
            ("httpGet", "{port: 80}"),
            ("tcpSocket", "{port: 80}"),
        ],
        inert: &[],
    },
    Place {
        name: "HTTPGetAction of a hook",
        manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: web\n    image: x\n    lifecycle:\n      preStop:\n        httpGet:\n          port: 80\n          @\n",
        keys: &[
            ("host", "127.0.0.1"),
            ("httpHeaders", "[{name: A, value: b}]"),
            ("path", "/x"),
            ("protocol", "HTTP"),
            ("scheme", "HTTPS"),
        ],
        inert: &[],
    },
    Place {
        name: "IngressSpec",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {a: b}, ports: [{port: 80, name: http}]}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  rules: []\n  @\n",
        keys: &[
            (
                "defaultBackend",
                "{service: {name: web, port: {name: http}}}",
            ),
            ("tls", "[{hosts: [a.example]}]"),
        ],
        // There is one gateway.
        inert: &["ingressClassName"],
    },
    Place {
        name: "IngressRule",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {a: b}, ports: [{port: 80}]}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  rules:\n  - @\n",
        keys: &[(
            "http",
            "{paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}\n    host: a.example",
        )],
        inert: &[],
    },
    Place {
        name: "HTTPIngressPath",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {a: b}, ports: [{port: 80}]}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  rules:\n  - http:\n      paths:\n      - backend: {service: {name: web, port: {number: 80}}}\n        @\n",
        keys: &[("path", "/x"), ("pathType", "Exact")],
        inert: &[],
    },
    Place {
        name: "PersistentVolumeClaimSpec",
        manifest: "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: d}\nspec:\n  @\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x}]}}\n",
        keys: &[
            ("dataSource", "{name: x}"),
            ("dataSourceRef", "{name: x}"),
            ("resources", "{requests: {storage: 1Gi}}"),
            ("selector", "{matchLabels: {a: b}}"),
            ("volumeAttributesClassName", "x"),
            ("volumeMode", "Block"),
            ("volumeName", "x"),
        ],
        // All is on one machine, and is written to as the containers say.
        inert: &["accessModes", "storageClassName"],
    },
    Place {
        name: "PersistentVolumeSpec",
        manifest: "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: v}\nspec:\n  hostPath: {path: /srv}\n  @\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: d}\nspec: {storageClassName: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: web, image: x, volumeMounts: [{name: d, mountPath: /d}]}], volumes: [{name: d, persistentVolumeClaim: {claimName: d}}]}}\n",
        keys: &[
            ("claimRef", "{name: d}"),
            ("local", "{path: /x}\n  storageClassName: x"),
            ("mountOptions", "[noatime]"),
            ("storageClassName", "x"),
            ("volumeAttributesClassName", "x"),
            ("volumeMode", "Block"),
        ],
        // There is one machine, the folder is as large as its disk, and nothing but a user's word removes it.
        inert: &[
            "accessModes",
            "capacity",
            "nodeAffinity",
            "persistentVolumeReclaimPolicy",
        ],
    },
    Place {
        name: "Secret",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, envFrom: [{secretRef: {name: s}}]}]\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n@\n",
        keys: &[
            ("data", "{A: eA==}"),
            ("stringData", "{A: x}"),
            ("type", "kubernetes.io/tls"),
        ],
        // A value is never changed in place: each deployment has the versions that it was made with.
        inert: &["immutable"],
    },
    Place {
        name: "ConfigMap",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, envFrom: [{configMapRef: {name: c}}], volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes: [{name: v, configMap: {name: c}}]\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n@\n",
        keys: &[("binaryData", "{A: eA==}"), ("data", "{A: x}")],
        // As with a Secret.
        inert: &["immutable"],
    },
    Place {
        name: "EnvFromSource",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        envFrom:\n        - configMapRef: {name: c}\n          @\n",
        keys: &[("prefix", "P_"), ("secretRef", "{name: s}")],
        inert: &[],
    },
    Place {
        name: "EnvVar",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        env:\n        - name: A\n          @\n",
        keys: &[
            ("value", "x"),
            ("valueFrom", "{fieldRef: {fieldPath: metadata.name}}"),
        ],
        inert: &[],
    },
    Place {
        name: "EnvVarSource",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {A: x}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        env:\n        - name: A\n          valueFrom:\n            @\n",
        keys: &[
            ("fieldRef", "{fieldPath: metadata.name}"),
            ("configMapKeyRef", "{name: c, key: A}"),
            ("fileKeyRef", "{volumeName: v, path: a, key: A}"),
            ("resourceFieldRef", "{resource: limits.cpu}"),
            ("secretKeyRef", "{name: s, key: A}"),
        ],
        inert: &[],
    },
    Place {
        name: "SecretEnvSource",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        envFrom:\n        - secretRef:\n            name: none\n            @\n",
        keys: &[("optional", "true")],
        inert: &[],
    },
    Place {
        name: "SecretKeySelector",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        env:\n        - name: A\n          valueFrom:\n            secretKeyRef:\n              name: none\n              key: A\n              @\n",
        keys: &[("optional", "true")],
        inert: &[],
    },
    Place {
        name: "ObjectFieldSelector",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        env:\n        - name: A\n          valueFrom:\n            fieldRef:\n              fieldPath: metadata.name\n              @\n",
        keys: &[],
        // There is one version of what a pod says of itself.
        inert: &["apiVersion"],
    },
    Place {
        name: "ResourceFieldSelector",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: web\n        image: x\n        resources: {limits: {cpu: 2}}\n        env:\n        - name: A\n          valueFrom:\n            resourceFieldRef:\n              resource: limits.cpu\n              @\n",
        keys: &[("divisor", "1m")],
        // In a variable it is the container itself.
        inert: &["containerName"],
    },
    Place {
        name: "Volume",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {A: x}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        @\n",
        keys: &[
            ("configMap", "{name: c}"),
            (
                "downwardAPI",
                "{items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}",
            ),
            ("emptyDir", "{medium: Memory}"),
            ("ephemeral", "{}"),
            ("hostPath", "{path: /srv}"),
            ("image", "{reference: x}"),
            ("nfs", "{server: x, path: /}"),
            ("persistentVolumeClaim", "{claimName: d}"),
            ("projected", "{sources: [{configMap: {name: c}}]}"),
            ("secret", "{secretName: s}"),
        ],
        inert: &[],
    },
    Place {
        name: "SecretVolumeSource",
        manifest: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        secret:\n          secretName: s\n          @\n",
        keys: &[("defaultMode", "0400"), ("items", "[{key: A, path: a}]")],
        inert: &[],
    },
    Place {
        name: "SecretVolumeSource of none",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        secret:\n          secretName: none\n          @\n",
        keys: &[
            ("defaultMode", "0400"),
            ("items", "[{key: A, path: a}]"),
            ("optional", "true"),
        ],
        inert: &[],
    },
    Place {
        name: "ConfigMapVolumeSource",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        configMap:\n          name: c\n          @\n",
        keys: &[("defaultMode", "0400"), ("items", "[{key: A, path: a}]")],
        inert: &[],
    },
    Place {
        name: "KeyToPath",
        manifest: "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        secret:\n          secretName: s\n          items:\n          - key: A\n            path: a\n            @\n",
        keys: &[("mode", "0400")],
        inert: &[],
    },
    Place {
        name: "ProjectedVolumeSource",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        projected:\n          sources: [{configMap: {name: c}}]\n          @\n",
        keys: &[("defaultMode", "0400")],
        inert: &[],
    },
    Place {
        name: "VolumeProjection",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {A: x}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        projected:\n          sources:\n          - configMap: {name: c}\n            @\n",
        keys: &[
            ("clusterTrustBundle", "{path: a}"),
            (
                "downwardAPI",
                "{items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}",
            ),
            ("podCertificate", "{signerName: x}"),
            ("secret", "{name: s, items: [{key: A, path: a}]}"),
            ("serviceAccountToken", "{path: a}"),
        ],
        inert: &[],
    },
    Place {
        name: "SecretProjection",
        manifest: "apiVersion: v1\nkind: Secret\nmetadata: {name: n}\nstringData: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        projected:\n          sources:\n          - secret:\n              name: n\n              @\n",
        keys: &[("items", "[{key: A, path: a}]")],
        inert: &[],
    },
    Place {
        name: "SecretProjection of none",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        projected:\n          sources:\n          - secret:\n              name: none\n              @\n",
        keys: &[("optional", "true")],
        inert: &[],
    },
    Place {
        name: "ConfigMapProjection",
        manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: n}\ndata: {A: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        projected:\n          sources:\n          - configMap:\n              name: n\n              @\n",
        keys: &[("items", "[{key: A, path: a}]")],
        inert: &[],
    },
    Place {
        name: "DownwardAPIVolumeSource",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        downwardAPI:\n          items: [{path: a, fieldRef: {fieldPath: metadata.name}}]\n          @\n",
        keys: &[("defaultMode", "0400")],
        inert: &[],
    },
    Place {
        name: "DownwardAPIVolumeFile",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        downwardAPI:\n          items:\n          - path: a\n            fieldRef: {fieldPath: metadata.name}\n            @\n",
        keys: &[
            ("mode", "0400"),
            (
                "resourceFieldRef",
                "{containerName: web, resource: limits.cpu}",
            ),
        ],
        inert: &[],
    },
    Place {
        name: "EmptyDirVolumeSource",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        emptyDir:\n          @\n",
        keys: &[("medium", "Memory"), ("sizeLimit", "1Mi")],
        inert: &[],
    },
    Place {
        name: "HostPathVolumeSource",
        manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        hostPath:\n          path: /srv\n          @\n",
        keys: &[("type", "DirectoryOrCreate")],
        inert: &[],
    },
    Place {
        name: "PersistentVolumeClaimVolumeSource",
        manifest: "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: d}\nspec: {resources: {requests: {storage: 1Gi}}}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: web, image: x, volumeMounts: [{name: v, mountPath: /v}]}]\n      volumes:\n      - name: v\n        persistentVolumeClaim:\n          claimName: d\n          @\n",
        keys: &[("readOnly", "true")],
        inert: &[],
    },
];

/// What comes of a manifest: what is deployed, and what is told.
fn outcome(place: &Place<'_>, line: &str) -> (String, String) {
    let manifest = place.manifest.replace('@', line);
    let files = Files([("deploy.yaml".to_owned(), manifest.into_bytes())].into());
    let options = ReadOptions {
        folder: "demo".to_owned(),
        ..ReadOptions::default()
    };
    match read(&files, &options) {
        Ok(manifest) => {
            let told: Vec<_> = manifest.warnings.iter().map(ToString::to_string).collect();
            (format!("{:?}", manifest.app), told.join("\n"))
        }
        Err(faults) => ("nothing".to_owned(), faults.to_string()),
    }
}

#[test]
fn every_key_is_honoured_or_told() {
    let mut silent = Vec::new();
    for place in PLACES {
        let (plain, plainly_told) = outcome(place, "");
        assert_ne!(plain, "nothing", "{}: {plainly_told}", place.name);
        for (key, value) in place.keys {
            let (with, told) = outcome(place, &format!("{key}: {value}"));
            if with == plain && told == plainly_told {
                silent.push(format!("{}: {key}", place.name));
            }
        }
    }
    assert!(silent.is_empty(), "passed over in silence: {silent:#?}");
}

#[test]
fn every_key_is_known() {
    let mut unknown = Vec::new();
    for place in PLACES {
        let inert = place.inert.iter().map(|key| (key, &"{}"));
        for (key, value) in place
            .keys
            .iter()
            .map(|(key, value)| (key, value))
            .chain(inert)
        {
            let (_, told) = outcome(place, &format!("{key}: {value}"));
            if told.contains("unknown key") || told.contains("bad YAML") {
                unknown.push(format!("{}: {key}: {told}", place.name));
            }
        }
    }
    assert!(unknown.is_empty(), "not known: {unknown:#?}");
}

#[test]
fn an_optional_config_map_may_be_missing() {
    let container = |rest: &str| {
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: "
            .to_owned()
            + rest
            + "}\n"
    };
    for rest in [
        "{containers: [{name: web, image: x, envFrom: [{configMapRef: {name: c @}}]}]}",
        "{containers: [{name: web, image: x, env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: A @}}}]}]}",
        "{volumes: [{name: v, configMap: {name: c @}}], containers: [{name: web, image: x}]}",
        "{volumes: [{name: v, projected: {sources: [{configMap: {name: c @}}]}}], containers: [{name: web, image: x}]}",
    ] {
        let manifest = container(rest);
        let place = Place {
            name: "optional",
            manifest: &manifest,
            keys: &[],
            inert: &[],
        };
        let (with, told) = outcome(&place, ", optional: true");
        assert_ne!(with, "nothing", "{rest}: {told}");
        let (without, told) = outcome(&place, "");
        assert!(
            without == "nothing" && told.contains("no ConfigMap"),
            "{rest}: {told}"
        );
    }
}
