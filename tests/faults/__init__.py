"""What breaks: processes killed, clocks wrong. Each test says what must be whole afterwards."""
