"""`python -m demo.mock_custom`: a mock of a company's own service; it lives in `demo.mocks.custom.server`."""

from demo.mocks.custom.server import main

if __name__ == "__main__":
    main()
