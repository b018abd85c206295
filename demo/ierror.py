"""Re-exports `services.wecom.codes` under the module name of WeCom's sample library."""

from services.wecom.codes import *  # noqa: F403 - the names are WeCom's
