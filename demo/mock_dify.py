"""`python -m demo.mock_dify`: run the mock Dify in `demo.mocks.dify.server`."""

from demo.mocks.dify.server import main

if __name__ == "__main__":
    main()
