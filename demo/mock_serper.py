"""`python -m demo.mock_serper`: a mock Serper; it lives in `demo.mocks.serper`."""

from demo.mocks.serper import main

if __name__ == "__main__":
    main()
