"""The whole product on one machine: a WeCom simulator, an embedded Redis, and mocks of the external services.

May import every package; no other package imports it. `WXBizJsonMsgCrypt` and `ierror` re-export `services.wecom` under
WeCom's names.
"""
