/* Faults between a process and the kernel: an LD_PRELOAD library that counts what a process does within one
 * folder and, at the operation it was told, kills the process, stops it, or lets the operation go wrong.
 *
 * The process arms it with shim_arm(). Every operation within the folder becomes one line of the log:
 *
 *     number  kind  fault  errno  inode  path  target        (tabs between; number -1: not one that counts)
 *
 * The line of an operation at which the process dies or stops is written before, every other one after.
 * Only absolute paths are looked at; the store uses no others.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define DESCRIPTORS 4096

/* Bits of a mask. kernel_faults.py has the same. */
enum kind {
    CREATE = 1, WRITE = 2, SYNC = 4, SYNC_DIRECTORY = 8, RENAME = 16, REMOVE = 32, MAKE_DIRECTORY = 64,
    CLOSE = 128, OPEN_DIRECTORY = 256, HINT = 512, OPEN = 1024, READ = 2048, LIST = 4096, STAT = 8192,
};

enum action {
    NOTHING,
    KILL,        /* SIGKILL before the operation */
    STOP,        /* SIGSTOP before the operation, then go on */
    FAIL,        /* the operation is not done, and fails */
    FAIL_DONE,   /* the operation is done, and fails: a lost reply of a file server */
    SHORT,       /* half a write; with an error number, the next write to the file fails with it */
    LIE,         /* the operation is not done, and succeeds */
};

struct plan {
    char folder[4096];
    unsigned kinds;
    enum action action;
    long first, last, stride;   /* the numbers that are hit */
    int error;
};

struct operation {
    enum kind kind;
    const char *path, *target;
    ino_t inode;
    long number;
    int fault;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct plan plan;
static int armed, log_descriptor = -1;
static long count;
static int fails_next = -1;   /* the descriptor whose next write fails */
static char *paths[DESCRIPTORS];

void shim_arm(const char *folder, const char *log, unsigned kinds, int action, long first, long last,
              long stride, int error)
{
    snprintf(plan.folder, sizeof plan.folder, "%s", folder);
    plan.kinds = kinds;
    plan.action = action;
    plan.first = first;
    plan.last = last;
    plan.stride = stride;
    plan.error = error;
    log_descriptor = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    armed = log_descriptor >= 0;
}

static int is_watched(const char *path)
{
    size_t length = strlen(plan.folder);
    return armed && path && !strncmp(path, plan.folder, length) && (path[length] == '/' || !path[length]);
}

/* The whole path of a name in an open folder, in `whole`: what is opened step by step is seen as well. */
static const char *whole_path(int folder, const char *path, char *whole)
{
    char link[64], above[4096];
    if (!armed || !path || path[0] == '/' || folder == AT_FDCWD)
        return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, above, sizeof above - 1);
    if (size < 0)
        return path;
    above[size] = 0;
    snprintf(whole, 2 * 4096, "%s/%s", above, path);
    return whole;
}

/* A copy of the path of a descriptor within the folder, or NULL. */
static char *path_of(int descriptor)
{
    if (!armed || descriptor < 0 || descriptor >= DESCRIPTORS)
        return NULL;
    pthread_mutex_lock(&lock);
    char *path = paths[descriptor] ? strdup(paths[descriptor]) : NULL;
    pthread_mutex_unlock(&lock);
    return path;
}

static void set_path(int descriptor, const char *path)
{
    if (descriptor < 0 || descriptor >= DESCRIPTORS)
        return;
    pthread_mutex_lock(&lock);
    free(paths[descriptor]);
    paths[descriptor] = path ? strdup(path) : NULL;
    pthread_mutex_unlock(&lock);
}

static void write_log(const struct operation *operation, int error)
{
    char line[3 * 4096];
    int size = snprintf(line, sizeof line, "%ld\t%d\t%d\t%d\t%lu\t%s\t%s\n", operation->number,
                        operation->kind, operation->fault, error, (unsigned long)operation->inode,
                        operation->path, operation->target ? operation->target : "");
    if (REAL(write)(log_descriptor, line, size) != size)
        abort();
}

/* Numbers the operation and says what becomes of it. Does not return when the process dies here. */
static enum action begin(struct operation *operation)
{
    pthread_mutex_lock(&lock);
    operation->number = plan.kinds & operation->kind ? count++ : -1;
    pthread_mutex_unlock(&lock);
    long number = operation->number;
    int hit = number >= plan.first && (plan.last < 0 || number <= plan.last)
              && (number - plan.first) % plan.stride == 0;
    operation->fault = hit && number >= 0 && plan.action != NOTHING;
    if (operation->fault && (plan.action == KILL || plan.action == STOP)) {
        write_log(operation, 0);
        /* To this very thread: it goes no further than here, whichever thread it is. */
        raise(plan.action == KILL ? SIGKILL : SIGSTOP);
        return NOTHING;
    }
    return operation->fault ? plan.action : NOTHING;
}

/* Logs the outcome, and makes it what the process is told. */
static long end(struct operation *operation, enum action action, long result)
{
    int error = result < 0 ? errno : 0;
    if (action == FAIL || action == FAIL_DONE) {
        error = plan.error;
        result = -1;
    }
    if (!(operation->fault && plan.action == STOP))
        write_log(operation, error);
    if (result < 0)
        errno = error;
    return result;
}

#define IS_DONE(action) ((action) != FAIL && (action) != LIE)

static ino_t inode_of(int descriptor)
{
    struct stat status;
    return descriptor >= 0 && fstat(descriptor, &status) == 0 ? status.st_ino : 0;
}

/* Opening and closing */

static int open_watched(const char *path, int flags, mode_t mode)
{
    /* Whoever lists a folder opens it as opendir(3) does. */
    int lists = flags & O_DIRECTORY && flags & O_NONBLOCK;
    enum kind kind = flags & O_CREAT ? CREATE : lists ? LIST : flags & O_DIRECTORY ? OPEN_DIRECTORY : OPEN;
    struct operation operation = {.kind = kind, .path = path};
    enum action action = begin(&operation);
    int descriptor = IS_DONE(action) ? REAL(open)(path, flags, mode) : -1;
    operation.inode = inode_of(descriptor);
    if (action == FAIL_DONE && descriptor >= 0)
        REAL(close)(descriptor);
    descriptor = end(&operation, action, descriptor);
    set_path(descriptor, lists ? NULL : path);
    return descriptor;
}

static mode_t mode_in(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_FUNCTION(name)                                                                                \
    int name(const char *path, int flags, ...)                                                             \
    {                                                                                                      \
        va_list arguments;                                                                                 \
        va_start(arguments, flags);                                                                        \
        mode_t mode = mode_in(flags, arguments);                                                           \
        va_end(arguments);                                                                                 \
        if (flags & O_PATH || !is_watched(path))                                                           \
            return REAL(name)(path, flags, mode);                                                          \
        return open_watched(path, flags, mode);                                                            \
    }

#define OPENAT_FUNCTION(name)                                                                              \
    int name(int folder, const char *path, int flags, ...)                                                 \
    {                                                                                                      \
        va_list arguments;                                                                                 \
        va_start(arguments, flags);                                                                        \
        mode_t mode = mode_in(flags, arguments);                                                           \
        va_end(arguments);                                                                                 \
        char whole[2 * 4096];                                                                              \
        const char *found = whole_path(folder, path, whole);                                               \
        /* A step on the way to a file is no operation. */                                                 \
        if (flags & O_PATH || !is_watched(found))                                                          \
            return REAL(name)(folder, path, flags, mode);                                                  \
        return open_watched(found, flags, mode);                                                           \
    }

OPEN_FUNCTION(open)
OPEN_FUNCTION(open64)
OPENAT_FUNCTION(openat)
OPENAT_FUNCTION(openat64)

int close(int descriptor)
{
    char *path = path_of(descriptor);
    if (!path)
        return REAL(close)(descriptor);
    struct operation operation = {.kind = CLOSE, .path = path, .inode = inode_of(descriptor)};
    enum action action = begin(&operation);
    set_path(descriptor, NULL);
    /* Linux frees the descriptor whatever close(2) returns. */
    int result = end(&operation, action, REAL(close)(descriptor));
    free(path);
    return result;
}

/* Writing, syncing, reading */

ssize_t write(int descriptor, const void *data, size_t size)
{
    char *path = path_of(descriptor);
    if (!path)
        return REAL(write)(descriptor, data, size);
    struct operation operation = {.kind = WRITE, .path = path, .inode = inode_of(descriptor)};
    enum action action = begin(&operation);
    if (fails_next == descriptor) {
        fails_next = -1;
        operation.fault = 1;
        action = FAIL;
    } else if (action == SHORT) {
        size = (size + 1) / 2;
        fails_next = plan.error ? descriptor : -1;
    }
    long result = IS_DONE(action) ? REAL(write)(descriptor, data, size) : (long)size;
    result = end(&operation, action, result);
    free(path);
    return result;
}

static int sync_watched(int descriptor, const char *path, int (*real)(int))
{
    struct stat status = {0};
    fstat(descriptor, &status);
    enum kind kind = S_ISDIR(status.st_mode) ? SYNC_DIRECTORY : SYNC;
    struct operation operation = {.kind = kind, .path = path, .inode = status.st_ino};
    enum action action = begin(&operation);
    return end(&operation, action, IS_DONE(action) ? real(descriptor) : 0);
}

#define SYNC_FUNCTION(name)                                                                                \
    int name(int descriptor)                                                                               \
    {                                                                                                      \
        char *path = path_of(descriptor);                                                                  \
        int result = path ? sync_watched(descriptor, path, REAL(name)) : REAL(name)(descriptor);           \
        free(path);                                                                                        \
        return result;                                                                                     \
    }

SYNC_FUNCTION(fsync)
SYNC_FUNCTION(fdatasync)

int sync_file_range(int descriptor, off64_t offset, off64_t size, unsigned flags)
{
    char *path = path_of(descriptor);
    if (!path)
        return REAL(sync_file_range)(descriptor, offset, size, flags);
    struct operation operation = {.kind = HINT, .path = path, .inode = inode_of(descriptor)};
    enum action action = begin(&operation);
    int result = IS_DONE(action) ? REAL(sync_file_range)(descriptor, offset, size, flags) : 0;
    result = end(&operation, action, result);
    free(path);
    return result;
}

#define READ_FUNCTION(name, parameters, arguments)                                                         \
    ssize_t name parameters                                                                                \
    {                                                                                                      \
        char *path = path_of(descriptor);                                                                  \
        if (!path)                                                                                         \
            return REAL(name) arguments;                                                                   \
        struct operation operation = {.kind = READ, .path = path, .inode = inode_of(descriptor)};          \
        enum action action = begin(&operation);                                                            \
        long result = end(&operation, action, IS_DONE(action) ? REAL(name) arguments : 0);                 \
        free(path);                                                                                        \
        return result;                                                                                     \
    }

READ_FUNCTION(preadv2, (int descriptor, const struct iovec *parts, int number, off_t offset, int flags),
              (descriptor, parts, number, offset, flags))
READ_FUNCTION(preadv64v2, (int descriptor, const struct iovec *parts, int number, off64_t offset, int flags),
              (descriptor, parts, number, offset, flags))
READ_FUNCTION(preadv, (int descriptor, const struct iovec *parts, int number, off_t offset),
              (descriptor, parts, number, offset))
READ_FUNCTION(preadv64, (int descriptor, const struct iovec *parts, int number, off64_t offset),
              (descriptor, parts, number, offset))

/* Names */

#define NAME_FUNCTION(name, kind_, other, parameters, found, arguments)                                    \
    int name parameters                                                                                    \
    {                                                                                                      \
        found                                                                                              \
        if (!is_watched(path))                                                                             \
            return REAL(name) arguments;                                                                   \
        struct operation operation = {.kind = kind_, .path = path, .target = other};                       \
        enum action action = begin(&operation);                                                            \
        return end(&operation, action, IS_DONE(action) ? REAL(name) arguments : 0);                        \
    }

#define IN_FOLDER(folder, name, path)                                                                      \
    char room_for_##path[2 * 4096];                                                                        \
    const char *path = whole_path(folder, name, room_for_##path)

NAME_FUNCTION(rename, RENAME, target, (const char *path, const char *target), , (path, target))
NAME_FUNCTION(renameat, RENAME, target, (int from, const char *old, int to, const char *new),
              IN_FOLDER(from, old, path); IN_FOLDER(to, new, target);, (from, old, to, new))
NAME_FUNCTION(unlink, REMOVE, NULL, (const char *path), , (path))
NAME_FUNCTION(unlinkat, REMOVE, NULL, (int folder, const char *name_, int flags),
              IN_FOLDER(folder, name_, path);, (folder, name_, flags))
NAME_FUNCTION(mkdir, MAKE_DIRECTORY, NULL, (const char *path, mode_t mode), , (path, mode))
NAME_FUNCTION(mkdirat, MAKE_DIRECTORY, NULL, (int folder, const char *name_, mode_t mode),
              IN_FOLDER(folder, name_, path);, (folder, name_, mode))
NAME_FUNCTION(stat, STAT, NULL, (const char *path, struct stat *status), , (path, status))
NAME_FUNCTION(stat64, STAT, NULL, (const char *path, struct stat64 *status), , (path, status))
NAME_FUNCTION(lstat, STAT, NULL, (const char *path, struct stat *status), , (path, status))
NAME_FUNCTION(lstat64, STAT, NULL, (const char *path, struct stat64 *status), , (path, status))
NAME_FUNCTION(fstatat, STAT, NULL, (int folder, const char *name_, struct stat *status, int flags),
              IN_FOLDER(folder, name_, path);, (folder, name_, status, flags))
NAME_FUNCTION(fstatat64, STAT, NULL, (int folder, const char *name_, struct stat64 *status, int flags),
              IN_FOLDER(folder, name_, path);, (folder, name_, status, flags))

DIR *opendir(const char *path)
{
    if (!is_watched(path))
        return REAL(opendir)(path);
    struct operation operation = {.kind = LIST, .path = path};
    enum action action = begin(&operation);
    DIR *folder = IS_DONE(action) ? REAL(opendir)(path) : NULL;
    int failed = end(&operation, action, folder ? 0 : -1) < 0;
    if (failed && folder) {
        int error = errno;
        closedir(folder);
        errno = error;
    }
    return failed ? NULL : folder;
}
