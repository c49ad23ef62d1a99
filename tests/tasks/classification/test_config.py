import pytest
from pydantic import ValidationError

from pacavit.tasks.classification.config import AugmentConfig, ClassificationConfig, MixConfig


def test_defaults_change_nothing() -> None:
    config = ClassificationConfig()
    assert config.augment == AugmentConfig(
        flip="none",
        shift=0,
        rotate=0,
        scale=0,
        brightness=0,
        contrast=0,
        cutout=0,
        rand_augment=None,
        random_erasing=0,
    )
    assert config.mix == MixConfig(mixup=0, cutmix=0)
    assert config.image_size is None


@pytest.mark.parametrize(
    "values",
    [
        {"label_smoothing": 1.0},
        {"image_size": 0},
        {"image_size": "32"},
        {"name": "detection"},
        {"unknown": 1},
        {"augment": {"flip": "sometimes"}},
        {"augment": {"shift": -1}},
        {"augment": {"shift": 1.0}},
        {"augment": {"scale": 1.0}},
        {"augment": {"rand_augment": "rand-inc"}},
        {"augment": {"rand_augment": "rand-m9-x2"}},
        {"augment": {"rand_augment": "augmix-m3"}},
        {"augment": {"random_erasing": 2.0}},
        {"mix": {"mixup": -1.0}},
        {"mix": {"until": 0.0}},
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClassificationConfig.model_validate(values)


def test_every_field_is_described() -> None:
    for model in (AugmentConfig, MixConfig, ClassificationConfig):
        assert all(field.description for field in model.model_fields.values())
