"""The measured effect of a feature."""

from backend.schemas.common import Model
from backend.schemas.features import FeatureRef


class TokenChange(Model):
    """A token whose probability of being the next one changes; means over places."""

    token: str
    before: float
    """Probability without the intervention."""
    change: float
    """Of the probability."""
    change_logprob: float
    """Of the log-probability, in nats."""


class TokenChanges(Model):
    """What an intervention does to the next token."""

    lowered: list[TokenChange]
    """The ten tokens whose probability falls most."""
    raised: list[TokenChange]
    kl: float
    """KL(unchanged ‖ changed) of the next token in nats, mean over places."""


class FeatureEffect(Model):
    """What ablating a feature where it fires does to the next tokens of the captions of its strongest samples."""

    id: int
    n_pairs: int
    """Pairs read in which it fires before a token of the text is predicted."""
    n_places: int
    """Places in them whose next token was read; 0 where there is none, and then no changes."""
    ablated: TokenChanges | None = None
    control: TokenChanges | None = None
    """A step of the same length, token by token, against the direction of a random feature."""
    control_feature: FeatureRef | None = None
