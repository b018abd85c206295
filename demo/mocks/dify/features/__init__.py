"""What the mock plays beside text: forms that ask back, uploads, and files of answers."""
