/* A module with a data type: sequences of numbers. It fails if two of its callbacks ever run at the same time. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Key Key;
typedef struct Type Type;
typedef struct Io Io;
typedef struct Digest Digest;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);

typedef struct {
    uint64_t version;
    void *(*rdb_load)(Io *io, int encver);
    void (*rdb_save)(Io *io, void *value);
    void (*aof_rewrite)(Io *io, String *key, void *value);
    size_t (*mem_usage)(const void *value);
    void (*digest)(Digest *digest, void *value);
    void (*free)(void *value);
    int (*aux_load)(Io *io, int encver, int when);
    void (*aux_save)(Io *io, int when);
    int aux_save_triggers;
    size_t (*free_effort)(String *key, const void *value);
    void (*unlink)(String *key, const void *value);
    void *(*copy)(String *from, String *to, const void *value);
    void *defrag;
    void *mem_usage2, *free_effort2, *unlink2, *copy2;
} Methods;

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*ReplyWithError)(Ctx *ctx, const char *text);
static int (*WrongArity)(Ctx *ctx);
static Key *(*OpenKey)(Ctx *ctx, String *name, int mode);
static void (*CloseKey)(Key *key);
static int (*KeyType)(Key *key);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static int (*StringToLongLong)(const String *string, long long *number);
static Type *(*CreateDataType)(Ctx *ctx, const char *name, int encver, Methods *methods);
static int (*ModuleTypeSetValue)(Key *key, Type *type, void *value);
static Type *(*ModuleTypeGetType)(Key *key);
static void *(*ModuleTypeGetValue)(Key *key);
static void (*SaveUnsigned)(Io *io, uint64_t number);
static uint64_t (*LoadUnsigned)(Io *io);
static void (*SaveDouble)(Io *io, double number);
static double (*LoadDouble)(Io *io);
static void (*SaveStringBuffer)(Io *io, const char *text, size_t len);
static char *(*LoadStringBuffer)(Io *io, size_t *len);
static void (*Free)(void *memory);
static void (*DigestAddLongLong)(Digest *digest, long long number);
static void (*DigestEndSequence)(Digest *digest);
static int (*ReplicateVerbatim)(Ctx *ctx);
static void (*EmitAOF)(Io *io, const char *command, const char *format, ...);

enum { READ = 1, WRITE = 2, MODULE = 6 };

typedef struct {
    size_t len;
    long long numbers[64];
} Sequence;

static Type *type;
static long long freed, unlinked, aux;

/* Whoever is in a callback of this module; there must never be two. */
static int inside;
static void enter(void) { if (__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) != 1) abort(); }
static void leave(void) { __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST); }

/* The file whose appearance ends the loading of the next value, or nothing. */
static char until[256];

static void wait_for_file(void) {
    if (until[0] == 0) return;
    char begun[300];
    snprintf(begun, sizeof begun, "%s.begun", until);
    fclose(fopen(begun, "w"));
    while (access(until, F_OK) != 0) usleep(1000);
    until[0] = 0;
}

static void *load(Io *io, int encver) {
    wait_for_file();
    if (encver != 1) return NULL;
    enter();
    Sequence *sequence = calloc(1, sizeof *sequence);
    sequence->len = LoadUnsigned(io);
    for (size_t at = 0; at < sequence->len && at < 64; at++) sequence->numbers[at] = (long long)LoadUnsigned(io);
    double half = LoadDouble(io);
    size_t len = 0;
    char *mark = LoadStringBuffer(io, &len);
    if (half != 0.5 || len != 3) abort();
    Free(mark);
    leave();
    return sequence;
}

static void save(Io *io, void *value) {
    enter();
    Sequence *sequence = value;
    SaveUnsigned(io, sequence->len);
    for (size_t at = 0; at < sequence->len; at++) SaveUnsigned(io, (uint64_t)sequence->numbers[at]);
    SaveDouble(io, 0.5);
    SaveStringBuffer(io, "end", 3);
    leave();
}

static void rewrite(Io *io, String *key, void *value) {
    enter();
    Sequence *sequence = value;
    for (size_t at = 0; at < sequence->len; at++) EmitAOF(io, "seq.add", "sl", key, sequence->numbers[at]);
    /* A value of these makes no commands: it is to be restored. */
    if (sequence->len > 0 && sequence->numbers[0] == 13) EmitAOF(io, "seq.unknown", "s", key);
    leave();
}

static size_t mem_usage(const void *value) {
    (void)value;
    return 1000;
}

static void digest(Digest *digest, void *value) {
    enter();
    Sequence *sequence = value;
    for (size_t at = 0; at < sequence->len; at++) DigestAddLongLong(digest, sequence->numbers[at]);
    DigestEndSequence(digest);
    leave();
}

static void release(void *value) {
    enter();
    freed++;
    free(value);
    leave();
}

static void unlinked_from(String *key, const void *value) {
    (void)key, (void)value;
    enter();
    unlinked++;
    leave();
}

static void *copy(String *from, String *to, const void *value) {
    (void)from, (void)to;
    enter();
    Sequence *sequence = malloc(sizeof *sequence);
    *sequence = *(const Sequence *)value;
    leave();
    return sequence;
}

static void aux_save(Io *io, int when) {
    (void)when;
    SaveUnsigned(io, (uint64_t)aux);
}

static int aux_load(Io *io, int encver, int when) {
    (void)encver, (void)when;
    aux = (long long)LoadUnsigned(io);
    return 0;
}

static const char *wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";

/* SEQ.ADD key number: returns the length. */
static int add(Ctx *ctx, String **argv, int argc) {
    if (argc != 3) return WrongArity(ctx);
    Key *key = OpenKey(ctx, argv[1], READ | WRITE);
    enter();
    int is_new = KeyType(key) == 0;
    if (!is_new && ModuleTypeGetType(key) != type) {
        CloseKey(key);
        leave();
        return ReplyWithError(ctx, wrong_type);
    }
    if (is_new) ModuleTypeSetValue(key, type, calloc(1, sizeof(Sequence)));
    Sequence *sequence = ModuleTypeGetValue(key);
    if (sequence->len < 64) StringToLongLong(argv[2], &sequence->numbers[sequence->len++]);
    long long len = (long long)sequence->len;
    CloseKey(key);
    ReplicateVerbatim(ctx);
    leave();
    return ReplyWithLongLong(ctx, len);
}

/* SEQ.SUM key */
static int sum(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return WrongArity(ctx);
    Key *key = OpenKey(ctx, argv[1], READ);
    long long total = 0;
    if (KeyType(key) == MODULE && ModuleTypeGetType(key) == type) {
        Sequence *sequence = ModuleTypeGetValue(key);
        for (size_t at = 0; at < sequence->len; at++) total += sequence->numbers[at];
    }
    CloseKey(key);
    return ReplyWithLongLong(ctx, total);
}

/* SEQ.FREED: how many values were freed. */
static int freed_count(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithLongLong(ctx, freed);
}

/* SEQ.UNLINKED: how many were removed from their keys. */
static int unlinked_count(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithLongLong(ctx, unlinked);
}

/* SEQ.AUX [number]: what is saved beside the keys. */
static int set_aux(Ctx *ctx, String **argv, int argc) {
    if (argc == 2) StringToLongLong(argv[1], &aux);
    return ReplyWithLongLong(ctx, aux);
}

#include "ask.h"

/* slow file: the next value that is loaded is not there before that file is; it makes one of that name and ".begun". */
static int slow(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return WrongArity(ctx);
    snprintf(until, sizeof until, "%s", StringPtrLen(argv[1], NULL));
    return ReplyWithLongLong(ctx, 1);
}

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    ASK(SetModuleAttribs), ASK(CreateCommand), ASK(ReplyWithLongLong), ASK(ReplyWithError), ASK(WrongArity);
    ASK(OpenKey), ASK(CloseKey), ASK(KeyType), ASK(StringToLongLong), ASK(CreateDataType), ASK(ModuleTypeSetValue);
    ASK(ModuleTypeGetType), ASK(ModuleTypeGetValue), ASK(SaveUnsigned), ASK(LoadUnsigned), ASK(SaveDouble);
    ASK(LoadDouble), ASK(SaveStringBuffer), ASK(LoadStringBuffer), ASK(Free), ASK(DigestAddLongLong);
    ASK(DigestEndSequence), ASK(ReplicateVerbatim), ASK(EmitAOF), ASK(StringPtrLen);
    SetModuleAttribs(ctx, "sequences", 1, 1);
    Methods methods = {
        .version = 4, .rdb_load = load, .rdb_save = save, .aof_rewrite = rewrite, .mem_usage = mem_usage, .digest = digest, .free = release,
        .aux_load = aux_load, .aux_save = aux_save, .aux_save_triggers = 1, .unlink = unlinked_from, .copy = copy,
    };
    if (CreateDataType(ctx, "tooshort", 1, &methods) != NULL) return 1;
    if (CreateDataType(ctx, "sequence1", 1024, &methods) != NULL || CreateDataType(ctx, "sequence1", -1, &methods) != NULL) return 1;
    Methods of_no_version = methods;
    of_no_version.version = 0;
    if (CreateDataType(ctx, "sequence1", 1, &of_no_version) != NULL) return 1;
    type = CreateDataType(ctx, "sequence1", 1, &methods);
    if (type == NULL || CreateDataType(ctx, "sequence1", 1, &methods) != NULL) return 1;
    if (CreateCommand(ctx, "seq.add", add, "write deny-oom", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "seq.sum", sum, "readonly", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "seq.freed", freed_count, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "seq.unlinked", unlinked_count, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "seq.aux", set_aux, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "seq.slow", slow, "readonly", 0, 0, 0) != 0) return 1;
    return 0;
}
