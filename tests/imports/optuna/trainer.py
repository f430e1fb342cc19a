"""Search of Hugging Face's trainer by Optuna, which says the direction and the trials."""

from transformers import Trainer


def sample(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 4),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.3),
    }


trainer = Trainer(model_init=print)
best = trainer.hyperparameter_search(hp_space=sample, direction="minimize", backend="optuna", n_trials=16)
