"""What every room shares: errors, files, targets, preprocessing, answers. numpy and the standard library only."""
