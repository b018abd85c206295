"""Re-exports `services.wecom.crypto` under the module name of WeCom's sample library."""

from services.wecom.crypto import Prpcrypt, WXBizJsonMsgCrypt

__all__ = ["Prpcrypt", "WXBizJsonMsgCrypt"]
