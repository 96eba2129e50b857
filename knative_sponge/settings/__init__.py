"""What can be set, one frozen dataclass per program: names, units, defaults, what is allowed.

Annotations and environment are parsed here and nowhere else; nothing is acted on, and nothing is read a second time.
May import `core.quantity` and `errors`.
"""

from knative_sponge.settings.controller import ControllerSettings
from knative_sponge.settings.observability import Observability
from knative_sponge.settings.probe import Probe
from knative_sponge.settings.proxy import ProxySettings
from knative_sponge.settings.serving import CpuLimit, Defer, Late, ProtocolName, Scaling, ServingSettings

__all__ = [
    "ControllerSettings",
    "CpuLimit",
    "Defer",
    "Late",
    "Observability",
    "Probe",
    "ProtocolName",
    "ProxySettings",
    "Scaling",
    "ServingSettings",
]
