"""The order of the context features, which decides which rule wins."""

from heksher_client._core.refresh.positions import Position, Validity
from heksher_client._logging import logger
from heksher_client.exceptions import UnexpectedResponseError


class FeatureOrder:
    """The order that a client uses: its own, until the service or the last known good says another one."""

    def __init__(self, features: tuple[str, ...]) -> None:
        self._declared = self.features = features
        self.is_from_service = False
        self.validity = Validity(None, None)
        """The positions of the responses of this refresh with this order."""
        self.position: Position | None = None
        """The position of the last response that said the order, if it says its own."""
        self.problem: UnexpectedResponseError | None = None
        """Why the last response did not say the order."""

    @property
    def is_current(self) -> bool:
        """True if the service said the order in the last response."""
        return self.is_from_service and self.problem is None

    def begin_refresh(self) -> None:
        """Forget the validity of former responses."""
        self.validity = Validity(None, None)

    def update(self, features: tuple[str, ...], position: Position | None) -> None:
        """Use the order of the service."""
        since = self.validity.since if features == self.features else None
        self.problem, self.is_from_service, self.position = None, True, position
        self.validity = Validity(since or position, position)
        if features != self.features:
            self.features = features
            logger.warning(
                "the service's context features differ from the known ones, or are in another order; its order is used",
                extra={"features_in_service": list(features), "features_in_client": list(self._declared)},
            )

    def keep(self, error: UnexpectedResponseError) -> None:
        """Keep the known order, as the service did not say it."""
        self.problem = UnexpectedResponseError(f"the order of the context features is not known: {error}")
        vars(self.problem).update(vars(error))
