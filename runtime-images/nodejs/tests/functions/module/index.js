export const handler = async () => 'a module';
