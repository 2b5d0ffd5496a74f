"""The order of the context features, which decides which rule wins."""

from collections.abc import Iterable

from heksher_client._core.refresh.positions import Position, Validity
from heksher_client._core.settings.context import check_feature_names, check_known
from heksher_client._logging import logger
from heksher_client.exceptions import UnexpectedResponseError, UnknownContextError


class FeatureOrder:
    """The order that a client uses: its own, until the service or the last known good says another one."""

    def __init__(self, features: Iterable[str] | None) -> None:
        """Create an order.

        Args:
            features: The order to assume until the service says its own; None if the program does not know any.

        Raises:
            TypeError, ValueError: They are not names of context features.
        """
        self._declared = None if features is None else check_feature_names(features)
        self._used: dict[str, None] = {}
        """The names that the program has used. Each change is one operation, as any thread can make it."""
        self.features = self._declared or ()
        self.is_from_service = False
        self.validity = Validity(None, None)
        """The positions of the responses of this refresh with this order."""
        self.position: Position | None = None
        """The position of the last response that said the order, if it says its own."""
        self.problem: UnexpectedResponseError | None = None
        """Why the last response did not say the order."""

    @property
    def known(self) -> tuple[str, ...] | None:
        """The context features that the program may use: its own list, or else that of the service once it is known."""
        if self._declared is None:
            return self.features if self.is_known else None
        return self._declared

    @property
    def is_known(self) -> bool:
        """True if there is an order to apply rules with."""
        return self._declared is not None or self.is_from_service or bool(self.features)

    @property
    def is_current(self) -> bool:
        """True if the service said the order in the last response."""
        return self.is_from_service and self.problem is None

    @property
    def lacking(self) -> UnknownContextError | None:
        """An error for the context features that the program lists, or uses without a list, and the service lacks."""
        if self.is_from_service:
            names = self._used.copy() if self._declared is None else self._declared
            try:
                check_known(names, self.features, "the service")
            except UnknownContextError as error:
                return error
        return None

    def check(self, names: Iterable[str]) -> None:
        """Check names of context features that the program uses.

        Without a list of its own and before the service has sent its features, they are checked when it does.

        Raises:
            UnknownContextError: A name is not one of its context features.
            ValueError: A name is not one that the service would accept.
        """
        if self.known is None:
            check_feature_names(names)
        else:
            check_known(names, self.known, "the service" if self._declared is None else "this client")
        self._used.update(dict.fromkeys(names))

    def begin_refresh(self) -> None:
        """Forget the validity of former responses."""
        self.validity = Validity(None, None)

    def update(self, features: tuple[str, ...], position: Position | None) -> None:
        """Use the order of the service."""
        since = self.validity.since if features == self.features else None
        is_other = self.is_known and features != self.features
        if is_other and not self.is_from_service:  # The program may list some of the features.
            is_other = [feature for feature in features if feature in self.features] != list(self.features)
        former = self.features if self._declared is None else self._declared
        self.problem, self.is_from_service, self.position = None, True, position
        self.validity = Validity(since or position, position)
        self.features = features
        if is_other:
            logger.warning(
                "the service has the context features %s; the client had %s: the order of the service is used",
                ", ".join(features),
                ", ".join(former) or "none",
                extra={"features_in_service": list(features), "features_in_client": list(former)},
            )

    def restore(self, features: tuple[str, ...]) -> bool:
        """Use a stored order, unless the service has sent its own. Return True if any is known."""
        if not self.is_from_service:
            self.features = features or self.features
        return self.is_known

    def keep(self, error: UnexpectedResponseError) -> None:
        """Keep the known order, as the service did not say it."""
        self.problem = UnexpectedResponseError(f"the order of the context features is not known: {error}")
        vars(self.problem).update(vars(error))
