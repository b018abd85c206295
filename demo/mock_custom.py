"""`python -m demo.mock_custom`: run the mock of a custom RAG service in `demo.mocks.custom.server`."""

from demo.mocks.custom.server import main

if __name__ == "__main__":
    main()
