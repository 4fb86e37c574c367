"""A page as the Chromium inside Qt WebEngine shows it (pip install PyQt6-WebEngine), without a screen.

python -m tests.reporting.qt_browser PAGE.html SHOT.png
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SIZE = (1100, 2200)
_SETTLED_MS = 1500
_PATIENCE_MS = 150_000


def main(page: str, shot: str) -> int:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu --in-process-gpu")
    from PyQt6.QtCore import QTimer, QUrl
    from PyQt6.QtWebEngineWidgets import QWebEngineView
    from PyQt6.QtWidgets import QApplication

    application = QApplication(["browser"])
    view = QWebEngineView()
    view.resize(*_SIZE)
    view.show()

    def grab() -> None:
        application.exit(0 if view.grab().save(shot) else 1)

    view.loadFinished.connect(lambda _: QTimer.singleShot(_SETTLED_MS, grab))
    view.load(QUrl.fromLocalFile(str(Path(page).resolve())))
    QTimer.singleShot(_PATIENCE_MS, lambda: application.exit(2))
    return int(application.exec())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
