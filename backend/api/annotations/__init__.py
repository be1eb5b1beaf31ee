"""What people write about features and samples."""
