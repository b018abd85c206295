"""The return codes of WeCom's message crypt library, under its own names. They are never sent."""

from __future__ import annotations

WXBizMsgCrypt_OK = 0
#: The signature was not made with this bot's token.
WXBizMsgCrypt_ValidateSignature_Error = -40001
#: The body is not a JSON object with an `encrypt` string.
WXBizMsgCrypt_ParseJson_Error = -40002
#: A part of the signature is not a string.
WXBizMsgCrypt_ComputeSignature_Error = -40003
#: The EncodingAESKey is not 43 characters of base64.
WXBizMsgCrypt_IllegalAesKey = -40004
#: Encrypted for another receiver: the receiveid at the end differs.
WXBizMsgCrypt_ValidateCorpid_Error = -40005
WXBizMsgCrypt_EncryptAES_Error = -40006
#: Length or padding is wrong, nearly always because of a wrong key.
WXBizMsgCrypt_DecryptAES_Error = -40007
#: Decrypted, but the inner layout (prefix, length, text) is inconsistent.
WXBizMsgCrypt_IllegalBuffer = -40008
WXBizMsgCrypt_EncodeBase64_Error = -40009
WXBizMsgCrypt_DecodeBase64_Error = -40010
#: The reply's envelope could not be built.
WXBizMsgCrypt_GenReturnJson_Error = -40011
