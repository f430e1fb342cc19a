"""Every schedule against its formula, and against torch's scheduler where torch has it."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from hpo.config.choices import SCHEDULES
from hpo.config.trial_config import TrialConfig
from hpo.training.schedules import epoch_rates, falls_so_far, rate_at, rate_key
from hpo.training.stagnation import count_stagnant_epochs


def half_cosine(a, b, p):
    return b + (a - b) * (1 + math.cos(math.pi * p)) / 2


def one_cycle(a, b, p):
    return half_cosine(a / 25, a, p / 0.3) if p < 0.3 else half_cosine(a, b, (p - 0.3) / 0.7)


FORMULAS = {
    "constant": lambda a, b, p: a,
    "linear": lambda a, b, p: a + (b - a) * p,
    "exponential": lambda a, b, p: a * (b / a) ** p,
    "cosine": half_cosine,
    "one_cycle": one_cycle,
    "polynomial": lambda a, b, p: b + (a - b) * (1 - p) ** 1.7,
}
BY_EPOCHS = {"step", "cosine_restarts", "reduce_on_plateau"}


def test_every_schedule_has_a_formula():
    assert set(FORMULAS) | BY_EPOCHS == set(SCHEDULES)


@pytest.mark.parametrize("warmup", [0, 0.25])
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, warmup):
    config = TrialConfig(
        schedule=name, learning_rate=0.1, final_learning_rate=0.002, warmup=warmup, polynomial_power=1.7
    )
    rising = 0 if name == "one_cycle" else round(warmup * 40)
    for step in range(41):
        got = rate_at(config, step, 40)
        if step < rising:
            assert got == pytest.approx(0.1 * (step + 1) / rising)
        else:
            assert got == pytest.approx(FORMULAS[name](0.1, 0.002, (step - rising) / (40 - rising)), rel=1e-12)


@pytest.mark.parametrize("warmup", [{}, {"warmup": 0.5}, {"warmup_steps": 7}, {"warmup_epochs": 2}])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rprop_keeps_its_rate(name, warmup):
    config = TrialConfig(optimizer="rprop", schedule=name, learning_rate=0.1, epochs=5, **warmup)
    assert epoch_rates(config, range(40), 40) == [rate_at(config, step, 40) for step in range(40)] == [0.1] * 40
    assert not config.rates_depend_on_epochs


# Torch's schedulers: one call of `step` an epoch, or a step.

EPOCHS, STEPS = 11, 4


def torch_rates(make, calls: int) -> list[float]:
    """The rate before each call of a scheduler's `step`, and after the last one."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the optimizer has done no step
        scheduler = make(optimizer)
        for _ in range(calls):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


PER_EPOCH = [
    ({"schedule": "step", "step_epochs": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5)),
    ({"schedule": "step", "step_epochs": 2}, lambda o: lr_scheduler.StepLR(o, 2)),
    ({"schedule": "exponential", "gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
]
PER_STEP = [
    (
        {"schedule": "polynomial", "polynomial_power": 0.9, "final_learning_rate": 0},
        lambda o: lr_scheduler.PolynomialLR(o, EPOCHS * STEPS, 0.9),
    ),
    (
        {"schedule": "cosine", "final_learning_rate": 0.01},
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS, eta_min=0.01),
    ),
    *(
        (
            {"schedule": "cosine_restarts", "restart_epochs": 2, "restart_factor": factor, "final_learning_rate": 0.01},
            lambda o, factor=factor: lr_scheduler.CosineAnnealingWarmRestarts(o, 2 * STEPS, factor, eta_min=0.01),
        )
        for factor in (1, 2)
    ),
    (
        {"warmup_steps": 6},
        lambda o: lr_scheduler.LinearLR(o, 1 / 6, total_iters=5),
    ),
    (
        {"warmup_epochs": 1.5, "schedule": "cosine", "final_learning_rate": 0},
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 1 / 6, total_iters=5), lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS - 6)],
            milestones=[6],
        ),
    ),
]


@pytest.mark.parametrize(
    ("given", "make", "each"), [*((*case, STEPS) for case in PER_EPOCH), *((*case, 1) for case in PER_STEP)]
)
def test_torch(given, make, each):
    config = TrialConfig(learning_rate=0.1, epochs=EPOCHS, **given)
    rates = [rate_at(config, step, EPOCHS * STEPS) for step in range(EPOCHS * STEPS + 1)]
    assert rates[::each] == pytest.approx(torch_rates(make, EPOCHS * STEPS // each), rel=1e-9, abs=1e-12)
    assert all(rates[step] == rates[step - step % each] for step in range(EPOCHS * STEPS))
    assert epoch_rates(config, range(STEPS, 2 * STEPS), EPOCHS * STEPS) == rates[STEPS : 2 * STEPS]


def test_a_schedule_by_epochs_begins_where_the_warmup_ends():
    config = TrialConfig(schedule="step", step_epochs=2, learning_rate=0.1, epochs=EPOCHS, warmup_epochs=3)
    rates = [rate_at(config, step, EPOCHS * STEPS) for step in range(EPOCHS * STEPS)]
    rising = [0.1 * (step + 1) / 12 for step in range(12)]
    assert rates == pytest.approx([*rising, *(0.1 * 0.1**fall for fall in range(4) for _ in range(8))])


def test_a_warmup_longer_than_training_ends_with_it():
    config = TrialConfig(learning_rate=0.1, warmup_steps=1000, schedule="linear")
    assert [rate_at(config, step, 40) for step in (0, 39, 40)] == pytest.approx([1e-4, 4e-3, 4.1e-3])
    assert rate_at(TrialConfig(learning_rate=0.1, warmup_steps=40, schedule="linear"), 40, 40) == 0.1


@pytest.mark.parametrize(
    ("given", "length"), [({"warmup": 0.5, "warmup_epochs": 1}, 8), ({"warmup": 0.5, "warmup_steps": 0}, 0)]
)
def test_a_warmup_in_epochs_or_steps_is_instead_of_the_fraction(given, length):
    config = TrialConfig(learning_rate=0.1, **given)
    assert [rate_at(config, step, 40) for step in range(9)] == [
        min(0.1, 0.1 * ((step + 1) / (length or 1))) for step in range(9)
    ]
    assert "warmup" not in config.effective()


@given(
    values=st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.7]), min_size=1, max_size=40),
    direction=st.sampled_from(["maximize", "minimize"]),
    min_delta=st.sampled_from([0.0, 0.05, 0.1]),
    patience=st.integers(0, 4),
    floor=st.sampled_from([None, 0.004]),
)
def test_reduce_on_plateau_is_torchs(values, direction, min_delta, patience, floor):
    config = TrialConfig(
        schedule="reduce_on_plateau",
        plateau_patience=patience,
        gamma=0.5,
        min_delta=min_delta,
        learning_rate=0.1,
        final_learning_rate=floor,
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, direction[:3], 0.5, patience, min_delta, "abs", min_lr=floor or 0, eps=0
    )
    rows = [{"score": value} for value in values]
    for epoch, value in enumerate(values, 1):
        scheduler.step(value)
        falls = falls_so_far(config, rows[:epoch], "score", direction)
        assert rate_at(config, 3, 40, falls) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_without_validation_the_loss_of_training_is_watched():
    config = TrialConfig(schedule="reduce_on_plateau", plateau_patience=0)
    rows = [{"epoch": epoch, "train_loss": loss} for epoch, loss in enumerate([3.0, 2.0, 2.0, 1.0], 1)]
    assert falls_so_far(config, rows, "epoch", "maximize") == 1
    assert falls_so_far(TrialConfig(schedule="step"), rows, "epoch", "maximize") == 0


def test_stagnation():
    """Improvements add up until they count, as in Keras and Lightning."""
    values = [0.5, 0.54, 0.58, 0.62, 0.66]
    assert count_stagnant_epochs(values, "maximize") == 0
    assert [count_stagnant_epochs(values[:n], "maximize", 0.1) for n in range(1, 6)] == [0, 1, 2, 0, 1]
    assert count_stagnant_epochs([3.0, 2.0, 2.0, 2.5], "minimize") == 2


@pytest.mark.parametrize(
    ("given", "depend"),
    [
        ({}, False),
        ({"warmup": 0.1}, True),
        ({"warmup_steps": 10}, False),
        ({"warmup_epochs": 1}, False),
        ({"schedule": "cosine"}, True),
        ({"schedule": "exponential"}, True),
        ({"schedule": "exponential", "gamma": 0.9}, False),
        ({"schedule": "step"}, True),
        ({"schedule": "step", "step_epochs": 2}, False),
        ({"schedule": "cosine_restarts", "restart_epochs": 2}, False),
        ({"schedule": "reduce_on_plateau"}, True),
        ({"schedule": "reduce_on_plateau", "plateau_patience": 2}, False),
    ],
)
def test_whether_rates_depend_on_the_number_of_epochs(given, depend):
    configs = [TrialConfig(epochs=epochs, **given) for epochs in (EPOCHS, 2 * EPOCHS)]
    steps = range(EPOCHS * STEPS)
    short, long = ([rate_at(each, step, each.epochs * STEPS, step // 8) for step in steps] for each in configs)
    patiences = [falls_so_far(each, [{"score": 1.0}] * EPOCHS, "score", "maximize") for each in configs]
    assert ((short, patiences[0]) != (long, patiences[1])) == depend
    assert configs[0].rates_depend_on_epochs == depend


def test_trials_of_one_key_have_the_same_rates():
    step = {"schedule": "step", "step_epochs": 2}
    assert rate_key(TrialConfig(**step)) == rate_key(TrialConfig(**step, gamma=0.1))
    assert rate_key(TrialConfig(**step)) != rate_key(TrialConfig(**step, gamma=0.2))
    assert rate_key(TrialConfig(warmup_steps=3)) != rate_key(TrialConfig())
    assert rate_key(TrialConfig(schedule="reduce_on_plateau")) is None


rates = st.floats(1e-8, 100)
schedules = st.sampled_from(sorted(SCHEDULES))


@given(name=schedules, rate=rates, final=rates, steps=st.integers(1, 10**6), warmup=st.floats(0, 0.999))
def test_step_after_the_last_is_exactly_final(name, rate, final, steps, warmup):
    config = TrialConfig(schedule=name, learning_rate=rate, final_learning_rate=final, warmup=warmup)
    if SCHEDULES[name].ends_at_final or name == "constant":
        assert rate_at(config, steps, steps) == (rate if name == "constant" else final)


@given(name=schedules, ratio=st.floats(1e-6, 1), steps=st.integers(1, 500), warmup=st.floats(0, 0.999))
def test_rates_stay_between_zero_and_the_highest(name, ratio, steps, warmup):
    config = TrialConfig(schedule=name, learning_rate=0.1, final_learning_rate_ratio=ratio, warmup=warmup)
    assert all(0 < rate_at(config, step, steps) <= 0.1 * (1 + 1e-12) for step in range(steps))


def test_ratio():
    config = TrialConfig(schedule="linear", learning_rate=0.3, final_learning_rate_ratio=0.1)
    assert rate_at(config, 7, 7) == 0.3 * 0.1 == config.final_rate


def test_final_rate_of_zero():
    assert rate_at(TrialConfig(schedule="cosine", final_learning_rate=0), 9, 9) == 0.0
