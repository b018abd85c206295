"""Former name, for other people's providers: use `services.providers.client.asking_service`."""

from services.providers.client.asking_service import AskingService

__all__ = ["AskingService"]
