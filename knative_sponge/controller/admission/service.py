"""The webhook's rules for a Knative Service: it refuses settings that cannot be used, and adds our autoscaler class. Pure.

What is beyond the administrator's limits is not refused, but told: it counts no further than they let it. So a Service that is
written before its limits, or for several clusters, is the same Service everywhere.

`kn --annotation` writes annotations on the Service and on its template. Both are checked; only the template's count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from knative_sponge.controller.admission.admission_review import Object, Review, Verdict, member, members
from knative_sponge.controller.annotations import (
    CLASS,
    CLASS_ANNOTATION,
    SLO_ANNOTATION,
    faults,
    read_settings,
    sponge_annotations,
)
from knative_sponge.controller.cluster.limits import CONFIG, NO_LIMITS, Limits
from knative_sponge.core.quantity import format_cores, parse_quantity
from knative_sponge.errors import SettingError
from knative_sponge.settings.serving import ANNOTATION_PREFIX, INTERNAL, ServingSettings

_LEFT_OUT: Final = "it to be left out: the webhook writes it on pods"
_MOST_ANNOTATIONS: Final = 64
"""Of ours on one object. There are fewer settings, and each of more is a fault that takes time to explain."""
_LONGEST_NAME: Final = 100
_MOST_FAULTS: Final = 20
"""That are named; a person mends these first."""


def mutate_service(review: Review) -> Verdict:
    """Add our class to a template with `slo` and without a class; remove our class where an update removes `slo`.

    Outcomes: class-added, class-removed, untouched. A template that the update does not change is left alone: to change it
    would make a new revision.
    """
    template = _template(review.new)
    before = _template(review.old)
    annotations = _annotations(template)
    if review.new is None or _is_leaving(review.new) or (review.old is not None and template == before):
        return Verdict("untouched")
    if _is_served(template) and not annotations.get(CLASS_ANNOTATION):
        return Verdict("class-added", changed=_annotated(review.new, {**annotations, CLASS_ANNOTATION: CLASS}))
    if _is_served(before) and not _is_served(template) and annotations.get(CLASS_ANNOTATION) == CLASS:
        rest = {key: value for key, value in annotations.items() if key != CLASS_ANNOTATION}
        return Verdict("class-removed", changed=_annotated(review.new, rest))
    return Verdict("untouched")


def validate_service(review: Review, limits: Limits = NO_LIMITS) -> Verdict:
    """Refuse settings that cannot be used, naming all of them; warn of settings that have no effect, or less than they say.
    limits: of the Service's namespace.

    Outcomes: allowed, refused, untouched. An update that changes neither the template nor our annotations is untouched whatever
    they say. So is an update of a Service that is being deleted, because its finalizers must be removed.
    """
    new, old = review.new, review.old
    if new is None or _is_leaving(new):
        return Verdict("untouched")
    template = _template(new)
    on_service, on_template = sponge_annotations(_annotations(new)), sponge_annotations(_annotations(template))
    if old is not None and template == _template(old) and on_service == sponge_annotations(_annotations(old)):
        return Verdict("untouched")
    # A dict drops repeated texts: `kn --annotation` makes each mistake twice.
    refused = list(dict.fromkeys(str(fault) for fault in (*_faults(on_template), *_faults(on_service))))
    if refused:
        lines = [f"annotation {text}" for text in refused[:_MOST_FAULTS]]
        if len(refused) > len(lines):
            lines.append(f"and {len(refused) - len(lines)} more")
        return Verdict("refused", message="\n".join(lines))
    return Verdict("allowed", warnings=tuple(_warnings(template, on_service, on_template, limits)))


def _faults(annotations: Mapping[str, str]) -> list[SettingError]:
    if len(annotations) > _MOST_ANNOTATIONS:
        allowed = f"one of at most {_MOST_ANNOTATIONS} annotations of {ANNOTATION_PREFIX}"
        return [SettingError(min(annotations)[:_LONGEST_NAME], "", allowed)]
    written = [SettingError(key, annotations[key], _LEFT_OUT) for key in sorted(INTERNAL & annotations.keys())]
    return [*written, *faults({key: value for key, value in annotations.items() if key not in INTERNAL})]


def _warnings(
    template: Object, on_service: Mapping[str, str], on_template: Mapping[str, str], limits: Limits
) -> Iterator[str]:
    alone = sorted(on_service.keys() - on_template.keys())
    if alone:
        yield (
            f"{', '.join(alone)}: no effect on the Service alone; "
            "set it on spec.template, as kn's --annotation and --annotation-revision do"
        )
    settings = read_settings(on_template)
    slo_s = settings.slo_s
    if slo_s is None:
        if on_template:
            yield f"{', '.join(sorted(on_template))}: no effect without {SLO_ANNOTATION} on spec.template"
        return
    if _has_h2c(template):
        yield f"{SLO_ANNOTATION}: the user port is named h2c (HTTP/2), so this revision keeps the stock proxy"
        return
    yield from _warnings_of_limits(template, settings, limits)
    timeout = member(template, "spec").get("timeoutSeconds")
    if isinstance(timeout, int) and slo_s > timeout:
        yield f"{SLO_ANNOTATION}: longer than timeoutSeconds ({timeout}), which ends every request first"
    chosen = _annotations(template).get(CLASS_ANNOTATION) or CLASS
    if chosen != CLASS:
        yield f"{CLASS_ANNOTATION} is {chosen}: only pod sizes are knative-sponge's, the number of pods is that class's"


def _warnings_of_limits(template: Object, settings: ServingSettings, limits: Limits) -> Iterator[str]:
    for bound in limits.bounds_on(settings):
        if bound.said and (key := ANNOTATION_PREFIX + bound.name) in _annotations(template):
            yield f"{key}: {bound.said} counts as {bound.counts}, all that the administrator allows here (ConfigMap {CONFIG})"
    if limits.max_cores is None:
        return
    containers = members(member(template, "spec"), "containers")
    for container in containers:
        resources = member(container, "resources")
        amount = str(member(resources, "requests").get("cpu", member(resources, "limits").get("cpu", "0")))
        # Knative serves with the container that has ports.
        if (len(containers) == 1 or members(container, "ports")) and _cores(amount) > limits.max_cores:
            yield (
                f"resources: pods start with {format_cores(limits.max_cores)} cores, not {amount}, "
                f"all that the administrator allows here (ConfigMap {CONFIG})"
            )


def _cores(amount: str) -> float:
    try:
        return parse_quantity(amount)
    except ValueError:
        return 0.0  # Knative refuses it


def _is_served(template: Object) -> bool:
    """Do pods of this template run our proxy?"""
    try:
        return read_settings(_annotations(template)).slo_s is not None and not _has_h2c(template)
    except SettingError:
        return False


def _has_h2c(template: Object) -> bool:
    containers = members(member(template, "spec"), "containers")
    return any(port.get("name") == "h2c" for one in containers for port in members(one, "ports"))


def _is_leaving(service: Object) -> bool:
    return bool(member(service, "metadata").get("deletionTimestamp"))


def _template(service: Object | None) -> Object:
    return {} if service is None else member(member(service, "spec"), "template")


def _annotations(value: Object) -> Mapping[str, str]:
    return member(member(value, "metadata"), "annotations")


def _annotated(service: Object, annotations: Mapping[str, str]) -> Object:
    """The Service with these annotations on its template."""
    template = _template(service)
    template = {**template, "metadata": {**member(template, "metadata"), "annotations": annotations}}
    return {**service, "spec": {**member(service, "spec"), "template": template}}
