"""The return codes of WeCom's message crypt library, under its own names. Numbers of the library: they never travel."""

from __future__ import annotations

WXBizMsgCrypt_OK = 0
#: The signature is not the one of our token.
WXBizMsgCrypt_ValidateSignature_Error = -40001
#: The body is no JSON object with an `encrypt` text.
WXBizMsgCrypt_ParseJson_Error = -40002
#: A part of the signature is no text.
WXBizMsgCrypt_ComputeSignature_Error = -40003
#: The EncodingAESKey is not 43 characters of base64.
WXBizMsgCrypt_IllegalAesKey = -40004
#: Made for another receiver: the receiveid at the end differs.
WXBizMsgCrypt_ValidateCorpid_Error = -40005
WXBizMsgCrypt_EncryptAES_Error = -40006
#: Length or padding is wrong, nearly always because the key is.
WXBizMsgCrypt_DecryptAES_Error = -40007
#: Decrypted, but the inner layout (prefix, length, text) does not add up.
WXBizMsgCrypt_IllegalBuffer = -40008
WXBizMsgCrypt_EncodeBase64_Error = -40009
WXBizMsgCrypt_DecodeBase64_Error = -40010
#: The reply's envelope could not be built.
WXBizMsgCrypt_GenReturnJson_Error = -40011
