/* The smallest runtime there is: no C library, one page of code. It asks for work, never answers, and so
 * costs next to nothing to kill. Given the word "stand" it only says that it stands. */

typedef unsigned long ulong;

static long call(long number, long a, long b, long c)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#else
#error "the stub knows x86_64 and aarch64"
#endif
}

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, SOCKET = 41, CONNECT = 42, EXIT = 60 };
#else
enum { READ = 63, WRITE = 64, SOCKET = 198, CONNECT = 203, EXIT = 93 };
#endif

static const char POLL[] = "GET /v1/runtime/invocation/request HTTP/1.1\r\nHost: x\r\n\r\n";

static int begins(const char *text, const char *with)
{
    while (*with)
        if (*text++ != *with++)
            return 0;
    return 1;
}

/* "127.1.2.3:456" as a sockaddr_in. */
static void parse(const char *text, unsigned char *address)
{
    unsigned long part = 0, port = 0;
    int at = 4;
    address[0] = 2; /* AF_INET */
    for (; *text && *text != ':'; text++) {
        if (*text == '.') {
            address[at++] = part;
            part = 0;
        } else {
            part = part * 10 + (*text - '0');
        }
    }
    address[at] = part;
    if (*text == ':')
        for (text++; *text; text++)
            port = port * 10 + (*text - '0');
    address[2] = port >> 8;
    address[3] = port;
}

__attribute__((noreturn, used)) void run(long *stack)
{
    long argc = stack[0];
    char **env = (char **)stack + argc + 2;
    unsigned char address[16] = {0};
    char answer[4096];
    if (argc > 1) {
        call(WRITE, 1, (long)".", 1);
        call(READ, 0, (long)answer, 1); /* for as long as its input is open */
        call(EXIT, 0, 0, 0);
    }
    for (; *env; env++)
        if (begins(*env, "RUNTIME_API_ADDR="))
            parse(*env + 17, address);
    long line = call(SOCKET, 2, 1, 0);
    if (call(CONNECT, line, (long)address, sizeof address) == 0) {
        call(WRITE, line, (long)POLL, sizeof POLL - 1);
        while (call(READ, line, (long)answer, sizeof answer) > 0)
            ; /* it has its request now, and never answers */
    }
    call(EXIT, 1, 0, 0);
    __builtin_unreachable();
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
#else
__asm__(".globl _start\n_start:\n mov x0, sp\n bl run\n");
#endif
