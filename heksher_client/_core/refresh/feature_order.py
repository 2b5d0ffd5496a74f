"""The order of the context features, which decides which rule wins."""

from heksher_client._logging import logger
from heksher_client.exceptions import UnexpectedResponseError


class FeatureOrder:
    """The order that a client uses: its own, until the service or the last known good says another one."""

    def __init__(self, features: tuple[str, ...]) -> None:
        self._declared = self.features = features
        self.is_from_service = False
        self.revision: int | None = None
        """The revision of the service's database that the order is of, if it says so."""
        self.problem: UnexpectedResponseError | None = None
        """Why the last response did not say the order."""

    @property
    def is_current(self) -> bool:
        """True if the service said the order in the last response."""
        return self.is_from_service and self.problem is None

    def update(self, features: tuple[str, ...], revision: int | None) -> None:
        """Use the order of the service."""
        self.problem, self.is_from_service, self.revision = None, True, revision
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
