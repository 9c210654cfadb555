// Preloaded: counts what the calling thread asks the C library's heap for (glibc).
#include <stddef.h>

static __thread long asked;
long malloc_count(void) { return asked; }

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t size) { return ++asked, __libc_malloc(size); }
void* calloc(size_t count, size_t size) { return ++asked, __libc_calloc(count, size); }
void* realloc(void* old, size_t size) { return ++asked, __libc_realloc(old, size); }
void* aligned_alloc(size_t align, size_t size) { return ++asked, __libc_memalign(align, size); }
void* memalign(size_t align, size_t size) { return ++asked, __libc_memalign(align, size); }
int posix_memalign(void** to, size_t align, size_t size) {
    ++asked;
    *to = __libc_memalign(align, size);
    return *to == NULL ? 12 : 0;  // ENOMEM
}
