"""`python -m demo.mock_serper`: run the mock Serper in `demo.mocks.serper`."""

from demo.mocks.serper import main

if __name__ == "__main__":
    main()
