"""What an app may do beside text: ask a person back, take and make files, name its steps, suggest questions."""
