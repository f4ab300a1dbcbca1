"""The policy of a Kueue installation as ours: ClusterQueue, Cohort, ResourceFlavor, WorkloadPriorityClass,
LocalQueue and Kueue's own Configuration, as files or as ``kubectl get -o yaml`` prints them; v1beta1 and v1beta2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import gcd, lcm

from slurm_gov.policy import accelerators
from slurm_gov.policy.importing import (
    MOST,
    Draft,
    Holder,
    Imported,
    Limit,
    Names,
    Notes,
    Object,
    PoolOption,
    Pools,
    Source,
    finish,
    is_type,
    number_limit,
    refuse,
    rounded,
    whole_problem,
)
from slurm_gov.policy.problems import Problem, shown
from slurm_gov.policy.quantity import quantity
from slurm_gov.policy.text import parse_all

_GROUP, _CONFIG = "kueue.x-k8s.io", "config.kueue.x-k8s.io"
_VERSIONS = ("v1beta1", "v1beta2")
_KINDS = ("ClusterQueue", "Cohort", "ResourceFlavor", "WorkloadPriorityClass", "LocalQueue")
GPU_RESOURCES = frozenset(
    {
        "nvidia.com/gpu",
        "amd.com/gpu",
        "gpu.intel.com/i915",
        "gpu.intel.com/xe",
        "habana.ai/gaudi",
        "aws.amazon.com/neuron",
        "aws.amazon.com/neurondevice",
    }
)
"""What Kubernetes calls whole accelerators."""
_MIG = "nvidia.com/mig-"
_BESIDE = {"cpu": ("cpu", 1), "memory": ("mem", 1024**2)}  # what stands behind the pool, and its unit
_WRITE_GPUS, _WRITE_AMOUNT = "write a number of GPUs, such as 8", "write a quantity, such as 512, or 4Ti of memory"
_LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "amd.com/gpu.product-name",
)
_INSTANCE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
_WITHIN = {
    "Never": "never",
    "LowerPriority": "lower_priority",
    "LowerOrNewerEqualPriority": "lower_or_newer_equal_priority",
}
_RECLAIM = {"Never": "never", "LowerPriority": "lower_priority", "Any": "any"}
_STRATEGIES = {
    ("LessThanOrEqualToFinalShare",): "final_share",
    ("LessThanInitialShare",): "initial_share",
    ("LessThanOrEqualToFinalShare", "LessThanInitialShare"): "final_then_initial_share",
}
_INSTEAD = {
    "namespaceSelector": "who may submit for a team are the users of its Slurm account (sacctmgr add user)",
    "admissionChecks": "nothing is asked before a job starts, but what Slurm itself checks",
    "admissionChecksStrategy": "nothing is asked before a job starts, but what Slurm itself checks",
    "flavorFungibility": "a job names its GPU type or partitions (-p a,b), and Slurm takes the first it can",
    "admissionScope": "the order within a team is Slurm's: PriorityWeightFairshare weighs its users' past use",
    "concurrentAdmissionPolicy": "a job that runs does not move to other nodes",
    "nodeTaints": "which jobs may use a node is its partition's to say (AllowAccounts, AllowQos)",
    "tolerations": "which jobs may use a node is its partition's to say (AllowAccounts, AllowQos)",
    "topologyName": "Slurm places by its own topology.conf",
}


@dataclass(slots=True)
class _Theirs:
    """The objects of one kind, by name."""

    queues: dict[str, Object] = field(default_factory=dict)
    cohorts: dict[str, Object] = field(default_factory=dict)
    flavors: dict[str, Object] = field(default_factory=dict)
    classes: dict[str, Object] = field(default_factory=dict)
    local: dict[str, Object] = field(default_factory=dict)
    config: list[Object] = field(default_factory=list)

    def of(self, kind_of_object: str) -> dict[str, Object]:
        return dict(zip(_KINDS, (self.queues, self.cohorts, self.flavors, self.classes, self.local), strict=True))[
            kind_of_object
        ]


def import_kueue(
    sources: Sequence[Source],
    pools: Mapping[str, PoolOption] | None = None,
    gpu_resources: Sequence[str] = (),
) -> Imported:
    """The policy file for these files. Raises PolicyError with every mistake in them.

    ``pools`` says for a flavor (``spot``, or ``spot/mig-1g.10gb`` for a part of its GPUs) what it is in Slurm;
    ``gpu_resources`` are names of resources that count GPUs, beside those known.
    """
    problems: list[Problem] = []
    found = _Import(problems, pools or {}, GPU_RESOURCES | set(gpu_resources))
    for source in sources:
        documents, twice = parse_all(source.text, source.name)
        problems += twice
        for document in documents:
            if isinstance(document.data, dict):
                found.sort(Object(source.name, document, (), document.data, problems))
            else:
                place = document.place(())
                problems.append(
                    Problem(source.name, place.line, place.column, "", "is no object", "write kind: ClusterQueue ...")
                )
    return found.run([source.name for source in sources])


def _add(holder: Holder, resource: str, nominal: int, borrow: int | None, lend: int | None) -> None:
    """Several flavors may be one pool: then what it has of them is added up, and so are its limits."""
    first = resource not in holder.quota
    holder.quota[resource] = holder.quota.get(resource, 0) + nominal
    for limits, number, everything in ((holder.borrow, borrow, "unlimited"), (holder.lend, lend, "all")):
        before = 0 if first else limits[resource]
        if number is None or before == everything:
            limits[resource] = everything
        else:
            limits[resource] = number_limit(number + (before if isinstance(before, int) else 0))


class _Import:
    """One import: what is known so far."""

    def __init__(self, problems: list[Problem], pools: Mapping[str, PoolOption], gpus: frozenset[str]) -> None:
        self.problems = problems
        self.gpus = gpus
        self.notes = Notes()
        self.pools = Pools(pools)
        self.theirs = _Theirs()
        self.teams = Names(self.notes, "ClusterQueue", "Slurm account")
        self.class_names = Names(self.notes, "WorkloadPriorityClass", "Slurm QOS")
        self.cohort_names = Names(self.notes, "Cohort", "cohort")
        self.draft = Draft()
        self.priorities: dict[int, int] = {}  # theirs to ours
        self.weights: list[tuple[Holder, Fraction]] = []
        self.parents: dict[str, str] = {}
        self.weighed = self.fair = False

    def sort(self, one: Object) -> None:
        """Put an object where it belongs; lists are taken apart."""
        api, kind_of_object = one.text("apiVersion", required=True), one.text("kind", required=True)
        if api is None or kind_of_object is None:
            return
        group, _, version = api.rpartition("/")
        if kind_of_object == "List" or (group == _GROUP and kind_of_object.removesuffix("List") in _KINDS):
            if kind_of_object.endswith("List"):
                for item in one.list("items"):
                    item.data = {"apiVersion": api, "kind": kind_of_object.removesuffix("List"), **item.data}
                    self.sort(item)
                return
        elif (group, kind_of_object) != (_CONFIG, "Configuration"):
            self.notes.add(f"{kind_of_object} ({api})", "left out")
            return
        if version not in _VERSIONS:
            one.wrong(["apiVersion"], f"{shown(api)} is not read here", f"write {group}/v1beta1 or {group}/v1beta2")
        elif group == _CONFIG:
            self.theirs.config.append(one)
        else:
            self._keep(one, kind_of_object)

    def _keep(self, one: Object, kind_of_object: str) -> None:
        metadata = one.section("metadata")
        if metadata is None or not metadata.has("name"):
            one.wrong(["metadata"], "names nothing", f'every {kind_of_object} has metadata: {{name: "..."}}')
            return
        name = metadata.text("name")
        if name is None:
            return
        namespace = metadata.text("namespace") if kind_of_object == "LocalQueue" else None
        name = f"{namespace}/{name}" if namespace else name
        others = self.theirs.of(kind_of_object)
        if name in others:
            one.wrong(
                ["metadata", "name"],
                f"{kind_of_object} {shown(name)} is given twice, first at {others[name].line}",
                "keep one",
            )
            return
        others[name] = one

    def run(self, files: list[str]) -> Imported:
        refuse(self.problems)
        if not self.theirs.queues:
            raise whole_problem(
                ", ".join(files), "holds no ClusterQueue", "give what kubectl get clusterqueues -o yaml prints"
            )
        self._priorities()
        for name, queue in self.theirs.queues.items():
            self._queue(name, queue)
        for name, cohort in self.theirs.cohorts.items():
            self._cohort(name, cohort)
        for name, flavor in self.theirs.flavors.items():
            self._flavor(name, flavor)
        self._loops()
        self._configuration()
        self._scale_weights()
        for unused in self.pools.unused():
            known = ", ".join(sorted(self.pools.asked)) or "none"
            raise whole_problem(f"--pool {unused}", "is no flavor with GPUs in these files", f"there are: {known}")
        refuse(self.problems)
        if not self.pools.made:
            raise whole_problem(
                ", ".join(files),
                "no ClusterQueue in it has a quota of GPUs, and ours are of GPUs",
                f"GPUs are {', '.join(sorted(self.gpus))}; others: --gpu-resource NAME",
            )
        self.pools.notes(self.notes, "flavors")
        self._fill()
        self._local_queues()
        self.draft.origin = ["The policy of slurm-gov, imported from Kueue's objects:", *files]
        return finish(self.draft, self.notes)

    # -- quotas --------------------------------------------------------------------------------------------

    def _groups(self, spec: Object, holder: Holder, whose: str, limits: bool) -> None:
        """Quota, borrowing and lending limits of a ClusterQueue or Cohort; ``limits``: whether it may have them."""
        for group in spec.list("resourceGroups"):
            group.known("coveredResources", "flavors")
            for flavor in group.list("flavors"):
                flavor.known("name", "resources")
                if name := flavor.text("name", required=True):
                    self._flavor_quotas(name, list(flavor.list("resources")), holder, whose, limits)

    def _flavor_quotas(
        self, flavor: str, resources: Sequence[Object], holder: Holder, whose: str, limits: bool
    ) -> None:
        """What it has of one flavor: CPUs and memory belong to the pool of the GPUs that stand beside them."""
        pools: dict[str, int] = {}
        beside: list[Object] = []
        for resource in resources:
            resource.known("name", "nominalQuota", "borrowingLimit", "lendingLimit")
            name = resource.text("name", required=True)
            if name in _BESIDE:
                beside.append(resource)
            elif name in self.gpus or (name or "").startswith(_MIG):
                pool, nominal = self._gpu_quota(resource, flavor, holder, limits)
                if pool is not None:
                    pools[pool] = pools.get(pool, 0) + nominal
            elif name is not None:
                instead = "not limited: ours are of GPUs, CPUs and memory; a job gets what it asks for"
                self.notes.add(f"quotas of {name}", instead, whose)
        if not beside:
            return
        if not pools:
            self.notes.add(
                "quotas of cpu and memory of a flavor without GPUs beside them",
                "not limited: ours stand beside the GPUs of a pool; such nodes are Slurm's alone",
                f"{whose}: {flavor}",
            )
            return
        # A flavor lists all GPUs of its group, with 0 of those that it does not have.
        pool = next((pool for pool, nominal in pools.items() if nominal), next(iter(pools)))
        if len(pools) > 1:
            self.notes.add(
                "quotas of cpu and memory of a flavor with several kinds of GPUs",
                f"taken as {pool}'s; jobs on the others are not limited in them",
                f"{whose}: {flavor}",
            )
        for resource in beside:
            kind_of, unit = _BESIDE[resource.data["name"]]
            read = partial(self._amount, resource, kind_of, unit, whose)
            _add(holder, f"{pool}/{kind_of}", *self._limits(resource, limits, read))

    def _gpu_quota(self, resource: Object, flavor: str, holder: Holder, limits: bool) -> tuple[str | None, int]:
        """The pool, ``None`` if there is none, and how many GPUs of it."""
        name = str(resource.data["name"])
        part = name.removeprefix("nvidia.com/") if name.startswith(_MIG) else ""
        if part and not is_type(part.removeprefix("mig-")):
            resource.wrong(["name"], f"{shown(name)} names no MIG profile", "such as nvidia.com/mig-1g.10gb")
            return None, 0
        nominal, borrow, lend = self._limits(resource, limits, partial(self._gpus, resource))
        pool = self.pools.of(
            f"{flavor}/{part}" if part else flavor, part.removeprefix("mig-") or self._gpu_type(flavor)
        )
        if pool is not None:
            _add(holder, pool, nominal, borrow, lend)
        elif nominal:
            resource.wrong(
                ["name"],
                f"which GPUs flavor {shown(flavor)} has is not known here",
                f"say it: --pool {flavor}=TYPE:PARTITION, such as h100:gpu; or give its ResourceFlavor with a "
                f"label such as nvidia.com/gpu.product",
            )
        return pool, nominal

    def _limits(
        self, resource: Object, limits: bool, read: Callable[[str], int | None]
    ) -> tuple[int, int | None, int | None]:
        """Its nominal quota, borrowing and lending limit."""
        nominal, borrow, lend = read("nominalQuota"), read("borrowingLimit"), read("lendingLimit")
        if not resource.has("nominalQuota"):
            beside = resource.data["name"] in _BESIDE
            resource.wrong(["nominalQuota"], "is missing", _WRITE_AMOUNT if beside else _WRITE_GPUS)
        if not limits:
            for limit in ("borrowingLimit", "lendingLimit"):
                if resource.has(limit):
                    resource.wrong([limit], "is set, and it is in no cohort to borrow from or lend to", "remove it")
        return nominal or 0, borrow, lend

    def _amount(self, resource: Object, kind_of: str, unit: int, whose: str, name: str) -> int | None:
        """CPUs, or MiB of memory."""
        value = resource.data.get(name)
        if value is None:
            return None
        number = quantity(value)
        if number is None or number < 0:
            resource.wrong([name], f"{shown(value)} is no quantity", _WRITE_AMOUNT)
        elif number / unit > (MOST * 1024 if kind_of == "mem" else MOST):
            resource.wrong([name], f"{shown(value)} is more than any cluster has", "write what there is")
        else:
            return rounded(number / unit, kind_of, self.notes, whose)
        return None

    def _gpus(self, resource: Object, name: str) -> int | None:
        value = resource.data.get(name)
        if value is None:
            return None
        number = quantity(value)
        if number is None or number < 0:
            resource.wrong([name], f"{shown(value)} is no quantity", _WRITE_GPUS)
        elif number.denominator != 1 or number > MOST:
            resource.wrong([name], f"{shown(value)} is no number of whole GPUs", "write a whole number, such as 8")
        else:
            return int(number)
        return None

    def _gpu_type(self, flavor: str) -> str | None:
        """What is known of a flavor's GPUs: from its labels, else from its name."""
        theirs = self.theirs.flavors.get(flavor)
        spec = theirs.section("spec") if theirs else None
        labels = spec.section("nodeLabels") if spec else None
        said = {key: str(value) for key, value in labels.data.items()} if labels else {}
        for label in _INSTANCE_LABELS:
            found = accelerators.of_instance_type(said.get(label, ""))
            if found and found[0]:
                return found[0]
        texts = [said[label] for label in _LABELS if label in said]
        texts += [value for label, value in sorted(said.items()) if label not in _LABELS]
        return next((one for text in [*texts, flavor] if (one := accelerators.named_in(text))), None)

    def _flavor(self, name: str, flavor: Object) -> None:
        spec = flavor.section("spec")
        if spec is not None:
            self._unknown(spec.known("nodeLabels", *_INSTEAD), f"ResourceFlavor {name}")
            self._without_counterpart(spec, f"ResourceFlavor {name}")

    # -- teams ---------------------------------------------------------------------------------------------

    def _queue(self, name: str, queue: Object) -> None:
        whose = f"ClusterQueue {name}"
        holder = Holder(comment="" if self.teams.of(name) == name else f"ClusterQueue {shown(name)[1:-1]}")
        self.draft.teams[self.teams.of(name)] = holder
        spec = queue.section("spec")
        if spec is None:
            if not queue.has("spec"):
                queue.wrong(["spec"], "is missing", "write spec: {resourceGroups: [...]}")
            return
        self._unknown(
            spec.known(
                "resourceGroups",
                "cohort",
                "cohortName",
                "queueingStrategy",
                "preemption",
                "stopPolicy",
                "fairSharing",
                *_INSTEAD,
            ),
            whose,
        )
        cohort = spec.text("cohortName") or spec.text("cohort")
        holder.cohort = cohort and self._cohort_name(cohort)
        self._groups(spec, holder, whose, limits=cohort is not None)
        if cohort is None:
            for pool in holder.quota:
                holder.lend[pool] = holder.borrow[pool] = "none"
        self._weight(spec, holder)
        self._without_counterpart(spec, whose)
        self._queueing(spec, whose)
        self._preemption(spec, holder, whose)

    def _without_counterpart(self, spec: Object, whose: str) -> None:
        for name, instead in _INSTEAD.items():
            if spec.data.get(name) not in (None, {}, []):
                self.notes.add(name, instead, whose)

    def _queueing(self, spec: Object, whose: str) -> None:
        stop = spec.choice("stopPolicy", "None", "Hold", "HoldAndDrain")
        if stop in ("Hold", "HoldAndDrain"):
            self.notes.add(
                f"stopPolicy: {stop}",
                "jobs start here; to stop a team: sacctmgr modify account NAME set MaxSubmitJobs=0",
                whose,
            )
        if spec.choice("queueingStrategy", "BestEffortFIFO", "StrictFIFO") == "StrictFIFO":
            self.notes.add(
                "queueingStrategy: StrictFIFO",
                "the order within a team is Slurm's, and what fits may start before an older job that does not; "
                "sharing.protect_after keeps a long-waiting job from being overtaken in borrowing",
                whose,
            )

    def _preemption(self, spec: Object, holder: Holder, whose: str) -> None:
        within, reclaim, threshold, borrow = "Never", "Never", None, "Never"
        preemption = spec.section("preemption")
        if preemption is not None:
            self._unknown(preemption.known("withinClusterQueue", "reclaimWithinCohort", "borrowWithinCohort"), whose)
            within = preemption.choice("withinClusterQueue", *_WITHIN) or within
            reclaim = preemption.choice("reclaimWithinCohort", *_RECLAIM) or reclaim
            while_borrowing = preemption.section("borrowWithinCohort")
            if while_borrowing is not None:
                self._unknown(while_borrowing.known("policy", "maxPriorityThreshold"), whose)
                borrow = while_borrowing.choice("policy", "Never", "LowerPriority") or borrow
                threshold = while_borrowing.whole("maxPriorityThreshold", -(2**31), 2**31 - 1)
        holder.rules["preempt_within_team"] = _WITHIN[within]
        holder.rules["reclaim"] = _RECLAIM[reclaim]
        if borrow == "LowerPriority":
            allowed: Limit = "lower_priority"
            if threshold is not None:
                allowed = max((ours for value, ours in self.priorities.items() if value <= threshold), default="none")
            holder.rules["borrow_preempts"] = allowed

    # -- cohorts -------------------------------------------------------------------------------------------

    def _cohort_name(self, name: str) -> str:
        mapped = self.cohort_names.of(name)
        self.draft.cohorts.setdefault(mapped, Holder())
        return mapped

    def _cohort(self, name: str, cohort: Object) -> None:
        whose = f"Cohort {name}"
        holder = self.draft.cohorts[self._cohort_name(name)]
        spec = cohort.section("spec")
        if spec is None:
            return
        self._unknown(spec.known("parentName", "parent", "resourceGroups", "fairSharing"), whose)
        parent = spec.text("parentName") or spec.text("parent")
        if parent is not None:
            holder.cohort = self._cohort_name(parent)
            self.parents[name] = parent
        self._groups(spec, holder, whose, limits=parent is not None)
        self._weight(spec, holder)

    def _loops(self) -> None:
        for name in self.parents:
            above, seen = self.parents.get(name), {name}
            while above is not None and above not in seen:
                seen.add(above)
                above = self.parents.get(above)
            if above == name:
                self.theirs.cohorts[name].wrong(
                    ["spec", "parentName"], f"Cohort {shown(name)} is below itself", "give the topmost no parentName"
                )

    # -- weights and priorities ----------------------------------------------------------------------------

    def _weight(self, spec: Object, holder: Holder) -> None:
        weight = Fraction(1)  # Kueue's default
        sharing = spec.section("fairSharing")
        if sharing is not None:
            sharing.known("weight")
            if sharing.has("weight"):
                weight = quantity(sharing.data["weight"]) or Fraction(0)
                if quantity(sharing.data["weight"]) is None or weight < 0:
                    sharing.wrong(
                        ["weight"], f"{shown(sharing.data['weight'])} is no weight", "write a number from 0"
                    )
                    return
                self.weighed = True
        self.weights.append((holder, weight))

    def _scale_weights(self) -> None:
        """Their weights are any numbers, ours whole ones from 0 to 100; only their ratios matter."""
        if not self.fair:
            return
        found = [weight for _, weight in self.weights]
        scale = Fraction(1)
        if any(weight.denominator != 1 for weight in found) or max(found, default=0) > 100:
            scale = Fraction(lcm(*(weight.denominator for weight in found)))
            scale /= gcd(*(int(weight * scale) for weight in found)) or 1
            if max(found) * scale > 100:
                scale = 100 / max(found)
            self.notes.add(
                "fairSharing weights that are no whole numbers from 0 to 100",
                f"all are multiplied by {float(scale):.4g} and rounded: only their ratios matter",
            )
        for holder, weight in self.weights:
            holder.weight = max(1, round(weight * scale)) if weight else 0

    def _priorities(self) -> None:
        """Their priorities are any numbers, ours 0 to 100, with 0 for jobs without a class: the order is kept."""
        given: dict[str, int] = {}
        for name, one in self.theirs.classes.items():
            self._unknown(one.known("apiVersion", "kind", "metadata", "value", "description"), name)
            value = one.whole("value", -(2**31), 2**31 - 1)
            if value is not None:
                given[name] = value
            elif not one.has("value"):
                one.wrong(["value"], "is missing", "write a number")
        ordered = sorted({0, *given.values()})
        self.priorities = {value: value for value in ordered}
        if ordered[0] < 0 or ordered[-1] > 100:
            if len(ordered) > 101:
                raise whole_problem(
                    next(iter(self.theirs.classes.values())).file,
                    f"{len(ordered)} different priorities are too many",
                    "at most 101 weights, from 0 to 100, are possible",
                )
            last = len(ordered) - 1
            self.priorities = {value: round(100 * rank / last) for rank, value in enumerate(ordered)}
            self.notes.add(
                "priorities that are not from 0 to 100",
                f"their order is kept: {', '.join(f'{n} {v} is {self.priorities[v]}' for n, v in given.items())}",
            )
            if ordered[0] < 0:
                self.notes.add(
                    "priorities below 0", "nothing is below jobs without a class here: they have 0, the lowest weight"
                )
        for name, value in sorted(given.items(), key=lambda item: (-item[1], item[0])):
            mapped = self.class_names.of(name)
            said = [] if mapped == name else [name]
            said += [] if self.priorities[value] == value else [f"value {value}"]
            self.draft.classes[mapped] = (self.priorities[value], ", ".join(said))

    # -- the cluster ---------------------------------------------------------------------------------------

    def _configuration(self) -> None:
        rebalance = "never"
        for other in self.theirs.config[1:]:
            other.wrong((), "is a second Configuration", f"the first is at {self.theirs.config[0].line}")
        config = self.theirs.config[0] if self.theirs.config else None
        sharing = config.section("fairSharing") if config else None
        if config is None:
            self.fair = self.weighed
            said = "some have fairSharing.weight" if self.fair else "nothing has fairSharing.weight"
            self.notes.add(
                "Kueue's Configuration is not in the files",
                f"fair sharing is taken as {'on' if self.fair else 'off'}, because {said}; its fairSharing says it",
            )
        elif sharing is not None:
            self.fair = sharing.data.get("enable", True) is True
            if config.has("admissionFairSharing"):
                self.notes.add("admissionFairSharing", _INSTEAD["admissionScope"])
        if self.fair:
            names = sharing.data.get("preemptionStrategies") if sharing else None
            rebalance = _STRATEGIES.get(tuple(names) if isinstance(names, list) else (), "")
            if names in (None, []):
                rebalance = "final_then_initial_share"
            elif not rebalance and sharing:
                sharing.wrong(
                    ["preemptionStrategies"],
                    "is not one of the lists that Kueue takes",
                    "write [LessThanOrEqualToFinalShare], [LessThanInitialShare] or both in this order",
                )
        self.draft.sharing = [
            (
                "idle",
                "fair_share" if self.fair else "first_come",
                f"Kueue's fair sharing is {'on' if self.fair else 'off'}",
            ),
            ("lend_unallocated", "false", "in Kueue only quotas are lent"),
            ("rebalance", rebalance or "never", "Kueue's fairSharing.preemptionStrategies"),
        ]
        self.draft.victims = "in_order", "Kueue's order: lowest priority, then most recently started; not our default"

    def _fill(self) -> None:
        """The pools that came of it; a team without a quota of GPUs is closed to all of them."""
        for name, (gres, partitions) in sorted(self.pools.made.items()):
            of = ", ".join(sorted(theirs for theirs, pool in self.pools.asked.items() if pool == name))
            self.draft.pools[name] = (gres, partitions, f"flavor {of}")
        for name, team in self.draft.teams.items():
            if not team.quota:
                first = next(iter(self.draft.pools))
                team.quota, team.lend, team.borrow = {first: 0}, {first: "none"}, {first: "none"}
                self.notes.add("ClusterQueues without a quota of GPUs", "the team may use no GPUs here", name)
        # A Cohort's limit of GPUs says nothing of what stands beside them; ours would hold for that in proportion.
        for cohort in self.draft.cohorts.values():
            for limits, everything in ((cohort.borrow, "unlimited"), (cohort.lend, "all")):
                for resource in sorted(self.draft.beside):
                    if limits.get(resource.partition("/")[0], everything) != everything:
                        limits.setdefault(resource, everything)

    def _local_queues(self) -> None:
        for name, local in self.theirs.local.items():
            spec = local.section("spec")
            queue = spec.text("clusterQueue") if spec else None
            if queue is None or queue not in self.theirs.queues:
                self.notes.add("LocalQueues of a ClusterQueue that is not in the files", "left out", name)
                continue
            self.notes.add(
                "LocalQueues", "jobs name the team's account: sbatch -A", f"{name}: {self.teams.of(queue)}"
            )
            if spec and (spec.data.get("stopPolicy") not in (None, "None") or spec.has("fairSharing")):
                self.notes.add("stopPolicy and fairSharing of LocalQueues", _INSTEAD["admissionScope"], name)

    def _unknown(self, fields: Sequence[str], whose: str) -> None:
        for name in fields:
            self.notes.add(f"{name} is not known here", "left out", whose)
