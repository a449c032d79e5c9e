"""Arrays in, arrays out: numpy and scipy only, reads as mathematics."""
