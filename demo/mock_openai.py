"""`python -m demo.mock_openai`: a mock OpenAI-compatible server; it lives in `demo.mocks.openai.server`."""

from demo.mocks.openai.server import main

if __name__ == "__main__":
    main()
