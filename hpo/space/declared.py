"""Declared domains: what registered models and training loops say of their own space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpo.config import registry
from hpo.config.declared_domain import DeclaredDomain, declared_domains
from hpo.config.trial_config import is_shared

__all__ = ["list_declared"]


def list_declared(models: Sequence[str]) -> dict[str, Any]:
    """Return the domains that models declare, as `Space` takes them, by parameter.

    Beside other models, a model's domain of a shared parameter holds under that model alone.

    Raises:
        RegistryError: a model is not registered.
    """
    literals: dict[str, Any] = {}
    for model in models:
        for name, declared in _find_domains(registry.models.get(model)).items():
            domain = declared.literal
            if len(models) == 1 or not is_shared(name):
                literals[name] = domain
            else:
                condition = {**domain.condition.to_json(), "model": model}
                literals.setdefault(name, []).append(replace(domain, when=condition))
    return literals


def _find_domains(entry: registry.ModelEntry) -> dict[str, DeclaredDomain]:
    if isinstance(entry.parameters, Mapping):
        return {name: row.domain for name, row in entry.parameters.items() if row.domain is not None}
    return declared_domains(entry.parameters)
