"""The whole bot on one machine: a simulator of WeCom, an embedded Redis, mocks of the services it calls.

May import everything; nothing below imports it. `WXBizJsonMsgCrypt` and `ierror` are the classic names of
`services.wecom`.
"""
