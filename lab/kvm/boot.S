/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest in one boot sector, for machines whose KVM runs no Linux kernel:
 * 32-bit protected mode, no paging, no interrupts.
 *
 * For ever, it writes a counter into each page of the 16 MiB above 16 MiB,
 * and before that checks that the page holds what the last pass wrote there:
 * a page that a migration lost, or put elsewhere, differs. On the first serial
 * port it prints '.' for each pass and '!' for each bad page.
 *
 * A page's value is (page's address | counter), in its first and its last
 * word; addresses leave the low 12 bits free, and the counter takes those.
 *
 * Registers while it runs: %ebx counter of this pass, %ebp that of the last,
 * %edi page, %ah what to print.
 */
	.set	COM1, 0x3f8
	.set	LINE_STATUS, 5
	.set	TRANSMITTER_EMPTY, 0x20
	.set	FIRST, 0x1000000
	.set	LAST, 0x2000000
	.set	PAGE, 4096
	.set	COUNTER_MASK, PAGE - 1
	.set	TAIL, PAGE - 4

	.code16
	.globl	_start
_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	/* Address line 20 may still be off: it would fold odd MiBs onto even ones. */
	inb	$0x92, %al
	orb	$2, %al
	outb	%al, $0x92
	lgdt	gdt_pointer
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmp	$8, $protected

	.code32
protected:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$0x7000, %esp

	xorl	%ebx, %ebx
	movl	$FIRST, %edi
fill:
	call	write
	jb	fill

pass:
	movl	%ebx, %ebp
	incl	%ebx
	andl	$COUNTER_MASK, %ebx
	movl	$FIRST, %edi
page:
	movl	%edi, %ecx
	orl	%ebp, %ecx
	cmpl	%ecx, (%edi)
	jne	bad
	cmpl	%ecx, TAIL(%edi)
	je	good
bad:
	movb	$'!', %ah
	call	print
good:
	call	write
	jb	page

	movb	$'.', %ah
	call	print
	jmp	pass

/* Writes this pass' value to the page and goes to the next; carry: there is one. */
write:
	movl	%edi, %ecx
	orl	%ebx, %ecx
	movl	%ecx, (%edi)
	movl	%ecx, TAIL(%edi)
	addl	$PAGE, %edi
	cmpl	$LAST, %edi
	ret

print:
	movw	$COM1 + LINE_STATUS, %dx
1:
	inb	%dx, %al
	testb	$TRANSMITTER_EMPTY, %al
	jz	1b
	movb	%ah, %al
	movw	$COM1, %dx
	outb	%al, %dx
	ret

	.align	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff	/* 8: code, 4 GiB, flat */
	.quad	0x00cf92000000ffff	/* 16: data, 4 GiB, flat */
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	gdt

	.org	510
	.word	0xaa55
