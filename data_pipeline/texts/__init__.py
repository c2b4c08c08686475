"""Plain text out of people's files: encodings, books, and the parts that a book is cut into."""
