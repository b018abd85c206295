"""`python -m demo.mock_openai`: run the mock of an OpenAI-compatible service in `demo.mocks.openai.server`."""

from demo.mocks.openai.server import main

if __name__ == "__main__":
    main()
