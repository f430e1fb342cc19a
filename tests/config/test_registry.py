import sys
from pathlib import Path

import pytest

import hpo
from hpo.config import registry
from hpo.errors import RegistryError


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


@pytest.mark.usefixtures("entries")
def test_ours_and_the_users_are_registered_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_mine.py").write_text(
        "import hpo\n@hpo.model('mine')\ndef mine(config, shape, classes): ...\n"
        "@hpo.metric('f1', direction='minimize')\ndef f1(outputs, targets): return 0.0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    registry.import_modules(["module_of_mine"])
    assert registry.models.get("mine").module == "module_of_mine"
    assert not registry.models.get("mine").builtin
    assert registry.models.get("mlp").builtin
    assert registry.metrics.get("f1").direction == "minimize"


def test_an_import_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(RegistryError, match="--import broken_module: ZeroDivisionError: division by zero"):
        registry.import_modules(["broken_module"])


def test_an_unknown_name_that_a_study_knows_names_its_module() -> None:
    with pytest.raises(RegistryError, match=r"model 'resnet' .* comes from module 'my_models': add --import my_models"):
        registry.models.get("resnet", "my_models")


@pytest.mark.usefixtures("entries")
def test_two_modules_may_not_share_a_name() -> None:
    with pytest.raises(RegistryError, match="choose another name"):
        hpo.model("mlp")(lambda config, shape, classes: None)


@pytest.mark.parametrize("decorator", ["training_loop", "model", "metric", "dataset"])
def test_a_decorator_without_a_name_says_so(decorator: str) -> None:
    with pytest.raises(RegistryError, match=rf'@hpo\.{decorator}: needs a name: @hpo\.{decorator}\("mine"\)'):
        getattr(hpo, decorator)(lambda *_: None)
