"""Load generators and yardsticks."""
