"""The configuration of a run: checked as a whole, with every problem reported at once."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from matl.aggregators import AGGREGATORS, Mean
from matl.attacks import ATTACKS
from matl.codec import CODECS
from matl.errors import ConfigError, InvalidValueError, nearest
from matl.learning.datasets import DATASETS
from matl.learning.dp_sgd import DPSGD
from matl.learning.local import LocalTraining
from matl.learning.partition import PARTITIONS
from matl.learning.server import SERVER_OPTIMIZERS
from matl.learning.tasks import TASKS
from matl.modes import MODES
from matl.registry import Registry
from matl.simulation.private import PrivacyConfig
from matl.state import digest

__all__ = ["NO_ORACLE", "TABLES", "LocalConfig", "RunConfig", "Spec", "load_config", "to_toml", "toml_value"]

Spec: TypeAlias = str | dict[str, Any]
"""A part by name, or a table of ``name`` and options."""

_SPECS: dict[str, Registry[Any]] = {
    "attack": ATTACKS,
    "mode": MODES,
    "aggregator": AGGREGATORS,
    "server_optimizer": SERVER_OPTIMIZERS,
    "task": TASKS,
    "partition": PARTITIONS,
    "codec": CODECS,
    "downlink": CODECS,
}
_NOT_GIVEN = {"attack": "none", "mode": None, "aggregator": None, "codec": None, "downlink": None}
"""What stands for no part at all."""
_LATER = frozenset({"codec", "downlink", "dropouts", "privacy"})
"""Keys that there were not when runs were first published: left out of digests unless they are used, so that a run has
the digest it always had."""


class LocalConfig(BaseModel):
    """What clients do locally; see `matl.learning.local.LocalTraining`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 32
    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    proximal: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    dp: DPSGD | None = None

    @model_validator(mode="after")
    def _one_length(self) -> LocalConfig:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give either steps or epochs, not both")
        self.build()
        return self

    def build(self) -> LocalTraining:
        """The recipe."""
        given = {key: getattr(self, key) for key in type(self).model_fields}
        if self.epochs is None and self.steps is None:
            given["steps"] = LocalTraining().steps
        return LocalTraining(**given)


class RunConfig(BaseModel):
    """Everything a run depends on.

    The keys are those of the configuration file and, with ``-`` for ``_``, the options of ``matl run``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: Spec = Field("digits", description="Data set by name.")
    clients: int = Field(50, ge=1, description="Number of clients.")
    byzantine: float = Field(0.4, ge=0, lt=1, description="Share of clients that are malicious, rounded down.")
    attack: Spec = Field("sign_flip", description="What malicious clients do; 'none' for nothing.")
    mode: Spec | None = Field(None, description="The judge; mode1, or plain when an aggregator is named.")
    aggregator: Spec | None = Field(None, description="The aggregation rule of mode plain; mean if not named.")
    partition: Spec = Field("dirichlet", description="How samples are spread over clients.")
    alpha: float = Field(0.5, gt=0, description="Concentration of the Dirichlet label skew; small is skewed.")
    rounds: int = Field(30, ge=1, description="Number of rounds.")
    participation: float = Field(1.0, gt=0, le=1, description="Share of clients drawn for each round.")
    task: Spec = Field("mlp", description="The model.")
    local: LocalConfig = Field(LocalConfig(), description="What clients do locally.")
    server_optimizer: Spec = Field("sgd", description="What the server does with the aggregate.")
    root_size: int = Field(100, ge=2, description="Clean samples the validator owns.")
    dropouts: float = Field(0.0, ge=0, lt=1, description="Share of a round's clients that fall silent during it.")
    codec: Spec | None = Field(None, description="How updates are made small; as they are if not named.")
    downlink: Spec | None = Field(None, description="How the model's changes are made small on their way to clients.")
    privacy: PrivacyConfig | None = Field(None, description="Differential privacy of the sums of updates.")
    max_norm: float | None = Field(None, gt=0, description="L2 norm above which an update is rejected.")
    device: str = Field("auto", min_length=1, description="Where a torch task computes; auto: a GPU if there is one.")
    seed: int = Field(10, ge=0, lt=2**63, description="Source of all randomness.")

    @field_validator("dataset", mode="before")
    @classmethod
    def _known_dataset(cls, value: Any) -> Any:
        DATASETS.bind(value)  # loading it is for the run
        if isinstance(value, Mapping):  # a path object is no plain data, of which the digest is made
            return {key: str(item) if isinstance(item, Path) else item for key, item in value.items()}
        return value

    @field_validator(*_SPECS, mode="before")
    @classmethod
    def _known_part(cls, value: Any, info: Any) -> Any:
        if value == _NOT_GIVEN.get(info.field_name, ...):
            return value
        registry = _SPECS[info.field_name]
        name = value.get("name") if isinstance(value, Mapping) else value
        # What a part gets from the run rather than from the configuration.
        given = {"oracle": NO_ORACLE, "aggregator": Mean(), "features": 1, "num_classes": 2}
        wanted = inspect.signature(registry.get(name)).parameters if isinstance(name, str) else {}
        if "shape" not in wanted:
            registry.create(value, **{key: item for key, item in given.items() if key in wanted})
        else:  # whether its options fit depends on the samples
            registry.bind(value, **dict.fromkeys(("features", "num_classes", "shape", "device")))
        return value

    @property
    def mode_spec(self) -> Spec:
        """The judge that is used: the one named, or the one that the aggregator implies."""
        if self.mode is not None:
            return self.mode
        return "mode1" if self.aggregator is None else "plain"

    @property
    def mode_name(self) -> str:
        """The name of the judge that is used."""
        return _name(self.mode_spec)

    @property
    def label(self) -> str:
        """Short name of what is run: the rule for plain runs, the mode for others."""
        mode = self.mode_name
        if mode != "plain":
            return mode
        rule = _name(self.aggregator if self.aggregator is not None else "mean")
        return "fedavg" if rule == "mean" else rule

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the configuration."""
        values = self.model_dump()
        unused = {key for key in _LATER if values[key] == type(self).model_fields[key].default}
        return digest({key: value for key, value in values.items() if key not in unused})


TABLES: dict[str, type[BaseModel]] = {"local": LocalConfig, "privacy": PrivacyConfig}
"""Keys that are tables of keys of their own."""


class _NoOracle:
    """Stands for the oracle while a configuration is checked and no data has been loaded yet."""

    digest = ""
    num_classes = 2


NO_ORACLE = _NoOracle()
"""For building a judge whose data is not known yet."""


def _name(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec["name"])


def load_config(path: Path | None, overrides: Mapping[str, Any], *, source: str = "command line") -> RunConfig:
    """Read a TOML file, put command-line values over it, and check the result.

    Parameters
    ----------
    path : Path or None
        The file; ``None`` for defaults.
    overrides : mapping
        Keys that were given elsewhere and win.
    source : str
        Where that is, for messages.

    Raises
    ------
    ConfigError
        The file cannot be read or parsed, or keys or values are wrong; all problems are listed.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), [f"cannot be read: {error}; name an existing TOML file"]) from error
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
            raise ConfigError(str(path), [f"is not TOML: {error}"]) from error
        source = f"{path} and {source}" if overrides else str(path)
    try:
        return RunConfig.model_validate({**values, **overrides})
    except ValidationError as error:
        raise ConfigError(source, [_explain(item) for item in error.errors()]) from error


def _explain(item: Any) -> str:
    """One line for one problem: the key, what is allowed, the value seen."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        model = TABLES.get(key.split(".", 1)[0] if "." in key else "", RunConfig)
        name = key.rsplit(".", 1)[-1]
        return f"{key}: unknown key{nearest(name, model.model_fields)}; keys: {', '.join(model.model_fields)}"
    if item["type"] == "value_error":  # one of our own, which names the value itself
        return f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"])
    message = item["msg"]
    return f"{key}: {message[0].lower() + message[1:]}, got {item['input']!r}"


def to_toml(config: RunConfig) -> str:
    """The configuration as a TOML file that gives it back."""
    values = config.model_dump(exclude_none=True)
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items() if key not in TABLES]
    for name in (table for table in TABLES if table in values):
        lines += ["", f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in values[name].items())]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value of a configuration as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON escapes all else TOML does
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, int | float):
        return repr(int(value) if isinstance(value, int) else float(value))  # NumPy's float64 has a repr of its own
    raise InvalidValueError(f"{type(value).__name__} has no TOML form: {value!r}")
