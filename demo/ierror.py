"""WeCom's return codes under the name that integrations import; they live in `services.wecom.codes`."""

from services.wecom.codes import *  # noqa: F403 - the names are WeCom's
