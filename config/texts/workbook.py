"""The words of a workbook with results, by language: its sheet, its columns, and the statuses of its rows.

They are words of a table, not sentences, so `TEXTS_FILE` does not replace them.
"""

from __future__ import annotations

from collections.abc import Mapping

WORKBOOK: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "sheet": "结果",
        "id": "编号",
        "own": "{name}（原表）",
        "number": "序号",
        "question": "问题",
        "answer": "回答",
        "status": "状态",
        "reason": "失败原因",
        "sources": "来源",
        "tokens": "Token 用量",
        "price": "费用",
        "attempts": "尝试次数",
        "started": "开始时间（{zone}）",
        "ended": "完成时间（{zone}）",
        "pending": "等待中",
        "running": "进行中",
        "completed": "已完成",
        "failed": "失败",
        "cancelled": "已取消",
    },
    "en": {
        "sheet": "Results",
        "id": "Id",
        "own": "{name} (yours)",
        "number": "No.",
        "question": "Question",
        "answer": "Answer",
        "status": "Status",
        "reason": "Reason",
        "sources": "Sources",
        "tokens": "Tokens",
        "price": "Price",
        "attempts": "Attempts",
        "started": "Started ({zone})",
        "ended": "Ended ({zone})",
        "pending": "Waiting",
        "running": "Running",
        "completed": "Completed",
        "failed": "Failed",
        "cancelled": "Cancelled",
    },
}
