"""WeCom's message crypt under the name that integrations import; it lives in `services.wecom.crypto`."""

from services.wecom.crypto import Prpcrypt, WXBizJsonMsgCrypt

__all__ = ["Prpcrypt", "WXBizJsonMsgCrypt"]
