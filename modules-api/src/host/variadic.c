/* The functions of the module ABI that have `...` or a `long double` by value: only C can define them. Each hands over to
 * Rust, which takes the arguments one by one. What they mean is decided there. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct arguments {
    va_list list;
};

void *shardis_module_next_pointer(struct arguments *arguments) { return va_arg(arguments->list, void *); }

size_t shardis_module_next_size(struct arguments *arguments) { return va_arg(arguments->list, size_t); }

long long shardis_module_next_long_long(struct arguments *arguments) {
    return va_arg(arguments->list, long long);
}

/* As vsnprintf, and leaves the arguments where they are. */
int shardis_module_format(struct arguments *arguments, char *buffer, size_t capacity, const char *format) {
    va_list copy;
    va_copy(copy, arguments->list);
    int len = vsnprintf(buffer, capacity, format, copy);
    va_end(copy);
    return len;
}

/* As snprintf. The style is that of `host::LongDoubleStyle`. */
int shardis_module_long_double_format(const long double *value, int style, char *buffer, size_t capacity) {
    switch (style) {
    case 0: return snprintf(buffer, capacity, "%.17Lg", *value);
    case 1: return snprintf(buffer, capacity, "%.17Lf", *value);
    default: return snprintf(buffer, capacity, "%La", *value);
    }
}

/* As strtold; returns how many characters it took. */
size_t shardis_module_long_double_parse(const char *text, long double *value) {
    char *end;
    *value = strtold(text, &end);
    return (size_t)(end - text);
}

/* As `host::Targets`. */
static struct targets {
    void *(*call)(void *ctx, const char *name, const char *format, struct arguments *arguments);
    int (*replicate)(void *ctx, const char *name, const char *format, struct arguments *arguments);
    void (*emit_aof)(void *io, const char *name, const char *format, struct arguments *arguments);
    void *(*create_string_printf)(void *ctx, const char *format, struct arguments *arguments);
    int (*reply_with_error_format)(void *ctx, const char *format, struct arguments *arguments);
    void (*log)(void *ctx, const char *level, const char *format, struct arguments *arguments);
    void (*log_io_error)(void *io, const char *level, const char *format, struct arguments *arguments);
    int (*hash_set)(void *key, int flags, struct arguments *arguments);
    int (*hash_get)(void *key, int flags, struct arguments *arguments);
    void *(*create_string_from_long_double)(void *ctx, const long double *value, int human);
    int (*reply_with_long_double)(void *ctx, const long double *value);
    void (*save_long_double)(void *io, const long double *value);
    void (*load_long_double)(void *io, long double *value);
} targets;

/* Before any module is loaded. */
void shardis_module_set_targets(const struct targets *given) { targets = *given; }

/* Runs an expression while `arguments` are those behind the parameter `last`. */
#define WITH_ARGUMENTS(last, expression)   \
    struct arguments arguments;            \
    va_start(arguments.list, last);        \
    expression;                            \
    va_end(arguments.list)

void *shardis_module_Call(void *ctx, const char *name, const char *format, ...) {
    WITH_ARGUMENTS(format, void *reply = targets.call(ctx, name, format, &arguments));
    return reply;
}

int shardis_module_Replicate(void *ctx, const char *name, const char *format, ...) {
    WITH_ARGUMENTS(format, int result = targets.replicate(ctx, name, format, &arguments));
    return result;
}

void shardis_module_EmitAOF(void *io, const char *name, const char *format, ...) {
    WITH_ARGUMENTS(format, targets.emit_aof(io, name, format, &arguments));
}

void *shardis_module_CreateStringPrintf(void *ctx, const char *format, ...) {
    WITH_ARGUMENTS(format, void *string = targets.create_string_printf(ctx, format, &arguments));
    return string;
}

int shardis_module_ReplyWithErrorFormat(void *ctx, const char *format, ...) {
    WITH_ARGUMENTS(format, int result = targets.reply_with_error_format(ctx, format, &arguments));
    return result;
}

void shardis_module_Log(void *ctx, const char *level, const char *format, ...) {
    WITH_ARGUMENTS(format, targets.log(ctx, level, format, &arguments));
}

void shardis_module_LogIOError(void *io, const char *level, const char *format, ...) {
    WITH_ARGUMENTS(format, targets.log_io_error(io, level, format, &arguments));
}

int shardis_module_HashSet(void *key, int flags, ...) {
    WITH_ARGUMENTS(flags, int result = targets.hash_set(key, flags, &arguments));
    return result;
}

int shardis_module_HashGet(void *key, int flags, ...) {
    WITH_ARGUMENTS(flags, int result = targets.hash_get(key, flags, &arguments));
    return result;
}

void *shardis_module_CreateStringFromLongDouble(void *ctx, long double value, int human) {
    return targets.create_string_from_long_double(ctx, &value, human);
}

int shardis_module_ReplyWithLongDouble(void *ctx, long double value) {
    return targets.reply_with_long_double(ctx, &value);
}

void shardis_module_SaveLongDouble(void *io, long double value) { targets.save_long_double(io, &value); }

long double shardis_module_LoadLongDouble(void *io) {
    long double value = 0;
    targets.load_long_double(io, &value);
    return value;
}
